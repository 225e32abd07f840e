"""Qwen3: Qwen2's masks, and queries and keys that are normalised head by head.

Source: huggingface/transformers v5.18.0 models/qwen3/modeling_qwen3.py.
"""

from __future__ import annotations

from typing import ClassVar

from memplan.dtypes import DType
from memplan.engine import Tensor
from memplan.engine.nn import RMSNorm
from memplan.models.config import ModelConfig
from memplan.models.llama import Attention, DecoderLayer, LlamaForCausalLM, LlamaModel
from memplan.models.qwen2 import Qwen2Model


class Qwen3Attention(Attention):
    """``Qwen3Attention``."""

    def __init__(self, c: ModelConfig, dtype: DType, implementation: str, layer_idx: int) -> None:
        super().__init__(c, dtype, implementation, layer_idx)
        self.q_norm = RMSNorm(c.head_dim, dtype)
        self.k_norm = RMSNorm(c.head_dim, dtype)

    def query(self, hidden_states: Tensor) -> Tensor:
        """Queries, normalised over the head: (B, S, heads, head_dim)."""
        normed: Tensor = self.q_norm(self.heads(self.q_proj(hidden_states)))
        return normed

    def key(self, hidden_states: Tensor) -> Tensor:
        """Keys, normalised over the head: (B, S, heads, head_dim)."""
        normed: Tensor = self.k_norm(self.heads(self.k_proj(hidden_states)))
        return normed


class Qwen3DecoderLayer(DecoderLayer):
    """``Qwen3DecoderLayer``."""

    attention_class: ClassVar[type[Attention]] = Qwen3Attention


class Qwen3Model(Qwen2Model):
    """``Qwen3Model``."""

    layer_class: ClassVar[type[DecoderLayer]] = Qwen3DecoderLayer


class Qwen3ForCausalLM(LlamaForCausalLM):
    """``Qwen3ForCausalLM``."""

    model_class: ClassVar[type[LlamaModel]] = Qwen3Model
