"""Llama as transformers runs it. Local variables live as long here as there.

The other families are this one with another attention or other masks, as in transformers' own
modular files.

Source: huggingface/transformers v5.18.0 models/llama/modeling_llama.py, modeling_layers.py,
utils/generic.py ``merge_with_config_defaults``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, NamedTuple

from memplan.dtypes import INT64, DType
from memplan.engine import S, Tensor
from memplan.engine.checkpoint import checkpoint
from memplan.engine.nn import Embedding, Linear, Module, RMSNorm, building_layer
from memplan.engine.ops.pointwise import add, add_number, mul, silu
from memplan.engine.ops.views import reshape, transpose, unsqueeze, view
from memplan.engine.repeat import Depth
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import empty
from memplan.models.attention import attention_function
from memplan.models.cache import DynamicCache
from memplan.models.config import ModelConfig
from memplan.models.loss import causal_lm_loss
from memplan.models.masks import create_causal_mask
from memplan.models.rope import RotaryEmbedding, apply_rotary_pos_emb

Masks = dict[str, Tensor | None]
FusedLoss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
FULL, SLIDING = "full_attention", "sliding_attention"


class BaseModelOutput(NamedTuple):
    """``BaseModelOutputWithPast``."""

    last_hidden_state: Tensor
    past_key_values: DynamicCache | None


class CausalLMOutput(NamedTuple):
    """``CausalLMOutputWithPast``: what a loop that keeps its outputs keeps.

    The logits are the head's own, not those in fp32 that the loss was taken of.
    """

    loss: Tensor
    logits: Tensor | None
    past_key_values: DynamicCache | None


class Attention(Module):
    """``LlamaAttention``."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, layer_idx: int) -> None:
        self.layer_idx, self.head_dim = layer_idx, c.head_dim
        self.num_key_value_groups = c.num_key_value_groups
        self.attention_dropout = c.attention_dropout
        self.attention = attention_function(implementation)
        self.rotate = apply_rotary_pos_emb
        query, key = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = Linear(c.hidden_size, query, dtype, bias=c.qkv_bias)
        self.k_proj = Linear(c.hidden_size, key, dtype, bias=c.qkv_bias)
        self.v_proj = Linear(c.hidden_size, key, dtype, bias=c.qkv_bias)
        self.o_proj = Linear(query, c.hidden_size, dtype, bias=c.o_bias)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: DynamicCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: (B, S, hidden_size)."""
        query_states = transpose(self.query(hidden_states), 1, 2)
        key_states = transpose(self.key(hidden_states), 1, 2)
        value_states = transpose(self.heads(self.v_proj(hidden_states)), 1, 2)
        cos, sin = position_embeddings
        query_states, key_states = self.rotate(query_states, key_states, cos, sin)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(
                key_states, value_states, self.layer_idx
            )
        attn_output, attn_weights = self.attention(
            self, query_states, key_states, value_states, attention_mask
        )
        B, N, heads, head_dim = attn_output.shape
        attn_output = reshape(attn_output, (B, N, heads * head_dim))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights

    def heads(self, x: Tensor) -> Tensor:
        """``x.view(*input_shape, -1, head_dim)``: (B, S, heads, head_dim)."""
        return view(x, (*x.shape[:-1], x.shape[-1] // self.head_dim, self.head_dim))

    def query(self, hidden_states: Tensor) -> Tensor:
        """Queries before the rotation: (B, S, heads, head_dim)."""
        return self.heads(self.q_proj(hidden_states))

    def key(self, hidden_states: Tensor) -> Tensor:
        """Keys before the rotation: (B, S, heads, head_dim)."""
        return self.heads(self.k_proj(hidden_states))


class SiLU(Module):
    """``ACT2FN["silu"]``."""

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape."""
        return silu(x)


class MLP(Module):
    """``LlamaMLP``."""

    def __init__(self, c: ModelConfig, dtype: DType) -> None:
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size, dtype, bias=c.mlp_bias)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size, dtype, bias=c.mlp_bias)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size, dtype, bias=c.mlp_bias)
        self.act_fn = SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, S, hidden_size)."""
        down_proj: Tensor = self.down_proj(mul(self.act_fn(self.gate_proj(x)), self.up_proj(x)))
        return down_proj


class DecoderLayer(Module):
    """``LlamaDecoderLayer``."""

    attention_class: ClassVar[type[Attention]] = Attention

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, layer_idx: int) -> None:
        self.self_attn = self.attention_class(c, dtype, implementation, layer_idx)
        self.mlp = MLP(c, dtype)
        self.input_layernorm = RMSNorm(c.hidden_size, dtype)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, dtype)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: DynamicCache | None,
        position_embeddings: tuple[Tensor, Tensor],
    ) -> Tensor:
        """hidden_states: (B, S, hidden_size)."""
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states, _ = self.self_attn(
            hidden_states, position_embeddings, attention_mask, past_key_values
        )
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = add(residual, hidden_states)
        return hidden_states


class LlamaModel(Module):
    """``LlamaModel``.

    Attributes:
        checkpointing: ``None``, or ``use_reentrant`` of activation checkpointing.
        use_cache: ``config.use_cache``.
        always_returns_cache: Whether a cache that was given is returned without ``use_cache``, too.
    """

    layer_class: ClassVar[type[DecoderLayer]] = DecoderLayer
    always_returns_cache: ClassVar[bool] = True

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, depth: Depth) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size, dtype)
        self.layers = []
        for i in range(depth.run):
            with building_layer(i, depth.copies(i)):
                self.layers.append(self.layer_class(c, dtype, implementation, i))
        self.norm = RMSNorm(c.hidden_size, dtype)
        self.rotary_emb = RotaryEmbedding(c)
        self.implementation = implementation
        self.sliding_window, self.layer_types = c.sliding_window, c.layer_types
        self.checkpointing: bool | None = None
        self.use_cache = False

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
    ) -> BaseModelOutput:
        """input_ids: (B, S), or inputs_embeds: (B, S, hidden_size)."""
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        past_key_values = past_key_values or self.new_cache()
        past = None if past_key_values is None else past_key_values.get_seq_length()
        position_ids = unsqueeze(self.positions(inputs_embeds.shape[1]), 0)
        causal_masks = self.create_masks(inputs_embeds, attention_mask, position_ids, past)
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids, past or 0)
        for i, decoder_layer in enumerate(self.layers):
            S.tape.enter(i)
            layer = partial(
                decoder_layer,
                attention_mask=causal_masks[self.layer_types[i]],
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
            )
            if self.checkpointing is None or not S.training:
                hidden_states = layer(hidden_states)
            else:
                hidden_states = checkpoint(layer, hidden_states, use_reentrant=self.checkpointing)
            del layer
        S.tape.enter(OUTSIDE)
        hidden_states = self.norm(hidden_states)
        is_returned = self.use_cache or self.always_returns_cache
        return BaseModelOutput(hidden_states, past_key_values if is_returned else None)

    def positions(self, n: int) -> Tensor:
        """``torch.arange(n) + past_seen_tokens``."""
        return add_number(empty((n,), INT64))

    def new_cache(self) -> DynamicCache | None:
        """A cache if one is asked for; activation checkpointing turns it off in training."""
        if not self.use_cache or (self.checkpointing is not None and S.training):
            return None
        return DynamicCache(self.layer_types, self.sliding_window)

    def create_masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past: int | None,
    ) -> Masks:
        """The mask of each kind of layer."""
        args = self.implementation, inputs_embeds, attention_mask, position_ids
        return {FULL: create_causal_mask(*args, past=past)}


class LlamaForCausalLM(Module):
    """``LlamaForCausalLM``."""

    model_class: ClassVar[type[LlamaModel]] = LlamaModel
    release: ClassVar[str | None] = None
    """Of transformers, if it is not today's."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, depth: Depth) -> None:
        self.config = c
        self.fused_loss: FusedLoss | None = None
        self.num_items_in_batch: Tensor | None = None
        self.model = self.model_class(c, dtype, implementation, depth)
        self.lm_head = Linear(c.hidden_size, c.vocab_size, dtype)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def cache_of(self, data: Iterable[Tensor]) -> DynamicCache:
        """A cache for ``past_key_values`` that holds keys and values of each layer."""
        return DynamicCache.of_data(data)

    def enable_input_require_grads(self) -> None:
        """The embedding's output wants a gradient, whether or not its weight trains."""
        self.model.embed_tokens.output_requires_grad = True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        labels: Tensor,
        past_key_values: DynamicCache | None = None,
    ) -> CausalLMOutput:
        """Loss and logits of a batch."""
        outputs: BaseModelOutput = self.model(
            input_ids, attention_mask, inputs_embeds, past_key_values
        )
        hidden_states = outputs.last_hidden_state
        if self.fused_loss is not None and S.training:
            weight = self.lm_head.weight
            loss = self.fused_loss(hidden_states, weight, labels, self.num_items_in_batch)
            return CausalLMOutput(loss, None, outputs.past_key_values)
        logits = self.lm_head(hidden_states)
        loss = causal_lm_loss(logits, labels, self.num_items_in_batch)
        return CausalLMOutput(loss, logits, outputs.past_key_values)
