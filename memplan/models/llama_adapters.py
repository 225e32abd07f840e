"""Llama as the ``adapters`` library runs it, on the transformers release that it pins.

The library has attention and layers of its own for each family: heads are repeated once, which
copies queries, keys and values, and adapters stand where the residuals are added. The release has
one buffer of rotary frequencies, and masks of its own (``masks_v4``).

Source: adapter-hub/adapters v1.3.0 models/llama/modeling_llama.py, composition.py
``match_attn_matrices_for_parallel``; huggingface/transformers v4.57.6
models/llama/modeling_llama.py.
"""

from __future__ import annotations

from typing import ClassVar

from memplan.dtypes import FP32, INT64, DType
from memplan.engine import Storage, Tensor, empty
from memplan.engine.nn import Module
from memplan.engine.ops.pointwise import add
from memplan.engine.ops.views import clone, reshape, transpose
from memplan.engine.repeat import Depth
from memplan.models.cache import DynamicCache
from memplan.models.config import ModelConfig
from memplan.models.llama import (
    FULL,
    Attention,
    DecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
    Masks,
)
from memplan.models.masks_v4 import create_causal_mask
from memplan.models.rope import RotaryEmbedding, apply_rotary_pos_emb


class ResidualAdd(Module):
    """``BottleneckLayer`` without an adapter."""

    def forward(self, hidden_states: Tensor, residual_input: Tensor) -> Tensor:
        """Both: (B, S, hidden_size)."""
        return add(hidden_states, residual_input)


class AttentionWithAdapters(Attention):
    """``LlamaAttentionWithAdapters``. Inferred from its source: no cache is ever filled."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: DynamicCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: (B, S, hidden_size)."""
        query_states = self.q_proj(hidden_states)
        key_states = self.k_proj(hidden_states)
        value_states = self.v_proj(hidden_states)
        query_states = transpose(self.heads(query_states), 1, 2)
        key_states = transpose(self.heads(key_states), 1, 2)
        value_states = transpose(self.heads(value_states), 1, 2)
        query_states, key_states, value_states = (
            clone(query_states),  # repeat(1, 1, 1, 1)
            clone(key_states),
            clone(value_states),
        )
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
        attn_output, attn_weights = self.attention(
            self, query_states, key_states, value_states, attention_mask
        )
        B, N, heads, head_dim = attn_output.shape
        attn_output = reshape(attn_output, (B, N, heads * head_dim))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights


class DecoderLayerWithAdapters(DecoderLayer):
    """``LlamaDecoderLayerWithAdapters``."""

    attention_class: ClassVar[type[Attention]] = AttentionWithAdapters

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, layer_idx: int) -> None:
        super().__init__(c, dtype, implementation, layer_idx)
        self.attention_adapters: Module = ResidualAdd()
        self.output_adapters: Module = ResidualAdd()

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
        hidden_states = self.attention_adapters(hidden_states, residual)
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = self.output_adapters(hidden_states, residual)
        return hidden_states


class OneBufferRotaryEmbedding(RotaryEmbedding):
    """Both names of the frequencies are one buffer's."""

    def materialize(self) -> None:
        """One buffer."""
        self.inv_freq = self.original_inv_freq = Storage(self.dim // 2 * FP32.itemsize)


class LlamaModelWithAdapters(LlamaModel):
    """``LlamaModel``."""

    layer_class: ClassVar[type[DecoderLayer]] = DecoderLayerWithAdapters

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, depth: Depth) -> None:
        super().__init__(c, dtype, implementation, depth)
        self.rotary_emb = OneBufferRotaryEmbedding(c)

    def positions(self, n: int) -> Tensor:
        """``torch.arange(start, end)``."""
        return empty((n,), INT64)

    def create_masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past: int | None,
    ) -> Masks:
        """One mask."""
        has_cache = past is not None
        args = self.implementation, inputs_embeds, attention_mask
        return {FULL: create_causal_mask(*args, has_cache=has_cache)}


class LlamaForCausalLMWithAdapters(LlamaForCausalLM):
    """``LlamaForCausalLM``."""

    model_class: ClassVar[type[LlamaModel]] = LlamaModelWithAdapters
    release: ClassVar[str | None] = "4.57.6"
