"""Llama as transformers runs it. Local variables live as long here as there.

Source: huggingface/transformers v5.18.0 models/llama/modeling_llama.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from memplan.dtypes import INT64, DType
from memplan.engine import S, Tensor
from memplan.engine.checkpoint import checkpoint
from memplan.engine.nn import Embedding, Linear, Module, RMSNorm, building_layer
from memplan.engine.ops.attention import efficient_attention, flash_attention
from memplan.engine.ops.matmul import matmul, softmax_float
from memplan.engine.ops.pointwise import add, add_number, mul, scale, silu, to
from memplan.engine.ops.views import contiguous, expand, reshape, transpose, unsqueeze, view
from memplan.engine.repeat import Depth
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import empty
from memplan.models.config import ModelConfig
from memplan.models.loss import causal_lm_loss
from memplan.models.masks import create_causal_mask
from memplan.models.rope import RotaryEmbedding, apply_rotary_pos_emb


class Attention(Module):
    """``LlamaAttention``."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str) -> None:
        self.heads, self.kv_heads, self.head_dim = (
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
        )
        self.implementation = implementation
        self.q_proj = Linear(c.hidden_size, self.heads * self.head_dim, dtype)
        self.k_proj = Linear(c.hidden_size, self.kv_heads * self.head_dim, dtype)
        self.v_proj = Linear(c.hidden_size, self.kv_heads * self.head_dim, dtype)
        self.o_proj = Linear(self.heads * self.head_dim, c.hidden_size, dtype)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: (B, S, hidden_size)."""
        B, N, _ = hidden_states.shape
        q_shape = (B, N, self.heads, self.head_dim)
        kv_shape = (B, N, self.kv_heads, self.head_dim)
        query_states = transpose(view(self.q_proj(hidden_states), q_shape), 1, 2)
        key_states = transpose(view(self.k_proj(hidden_states), kv_shape), 1, 2)
        value_states = transpose(view(self.v_proj(hidden_states), kv_shape), 1, 2)
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
        interface = eager_attention if self.implementation == "eager" else sdpa_attention
        attn_output, attn_weights = interface(self, query_states, key_states, value_states, mask)
        attn_output = reshape(attn_output, (B, N, self.heads * self.head_dim))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights


def repeat_kv(hidden_states: Tensor, n_rep: int) -> Tensor:
    """(B, KV, S, D) -> (B, KV * n_rep, S, D)."""
    batch, num_key_value_heads, slen, head_dim = hidden_states.shape
    if n_rep == 1:
        return hidden_states
    hidden_states = expand(
        unsqueeze(hidden_states, 2), (batch, num_key_value_heads, n_rep, slen, head_dim)
    )
    return reshape(hidden_states, (batch, num_key_value_heads * n_rep, slen, head_dim))


def sdpa_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, None]:
    """``integrations/sdpa_attention.py``: grouped heads in the kernel unless there is a mask."""
    if mask is not None:
        key = repeat_kv(key, module.heads // module.kv_heads)
        value = repeat_kv(value, module.heads // module.kv_heads)
        attn_output = efficient_attention(query, key, value, mask)
    else:
        attn_output = flash_attention(query, key, value)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, None


def eager_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``eager_attention_forward``."""
    key_states = repeat_kv(key, module.heads // module.kv_heads)
    value_states = repeat_kv(value, module.heads // module.kv_heads)
    attn_weights = scale(matmul(query, transpose(key_states, 2, 3)))
    assert mask is not None
    attn_weights = add(attn_weights, mask)
    attn_weights = to(softmax_float(attn_weights), query.dtype)
    attn_output = matmul(attn_weights, value_states)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


class MLP(Module):
    """``LlamaMLP``."""

    def __init__(self, c: ModelConfig, dtype: DType) -> None:
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size, dtype)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size, dtype)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, S, hidden_size)."""
        return self.down_proj(mul(silu(self.gate_proj(x)), self.up_proj(x)))  # type: ignore[no-any-return]


class DecoderLayer(Module):
    """``LlamaDecoderLayer``."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str) -> None:
        self.self_attn = Attention(c, dtype, implementation)
        self.mlp = MLP(c, dtype)
        self.input_layernorm = RMSNorm(c.hidden_size, dtype)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, dtype)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        mask: Tensor | None,
        position_ids: Tensor,
    ) -> Tensor:
        """hidden_states: (B, S, hidden_size)."""
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, position_embeddings, mask)
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
        input_require_grads: ``enable_input_require_grads`` was called.
    """

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, depth: Depth) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size, dtype)
        self.layers = []
        for i in range(depth.run):
            with building_layer(i, depth.copies(i)):
                self.layers.append(DecoderLayer(c, dtype, implementation))
        self.norm = RMSNorm(c.hidden_size, dtype)
        self.rotary_emb = RotaryEmbedding(c.head_dim)
        self.implementation = implementation
        self.checkpointing: bool | None = None
        self.input_require_grads = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """input_ids: (B, S)."""
        inputs_embeds = self.embed_tokens(input_ids)
        if self.input_require_grads:
            inputs_embeds.requires_grad = True
        position_ids = add_number(empty((inputs_embeds.shape[1],), INT64))
        position_ids = unsqueeze(position_ids, 0)
        causal_mask = create_causal_mask(
            self.implementation, inputs_embeds, attention_mask, position_ids
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for i, decoder_layer in enumerate(self.layers):
            S.tape.enter(i)
            if self.checkpointing is None:
                hidden_states = decoder_layer(
                    hidden_states, position_embeddings, causal_mask, position_ids
                )
            else:
                layer = partial(
                    decoder_layer,
                    position_embeddings=position_embeddings,
                    mask=causal_mask,
                    position_ids=position_ids,
                )
                hidden_states = checkpoint(layer, hidden_states, use_reentrant=self.checkpointing)
                del layer
        S.tape.enter(OUTSIDE)
        normed: Tensor = self.norm(hidden_states)
        return normed


class LlamaForCausalLM(Module):
    """``LlamaForCausalLM``."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, depth: Depth) -> None:
        self.model = LlamaModel(c, dtype, implementation, depth)
        self.lm_head = Linear(c.hidden_size, c.vocab_size, dtype)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(loss, logits)."""
        hidden_states = self.model(input_ids, attention_mask)
        logits = self.lm_head(hidden_states)
        loss = causal_lm_loss(logits, labels)
        return loss, logits
