"""Rotary position embeddings.

Source: huggingface/transformers v5.18.0 models/llama/modeling_llama.py.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Storage, Tensor, empty, no_grad
from memplan.engine.nn import Module
from memplan.engine.ops.matmul import workspace
from memplan.engine.ops.pointwise import add, mul, neg, scale, to, unary
from memplan.engine.ops.pointwise import cat as cat_op
from memplan.engine.ops.views import half, unsqueeze


def rotate_half(x: Tensor) -> Tensor:
    """The second half negated, before the first."""
    x1 = half(x)
    x2 = half(x)
    return cat_op(neg(x2), x1, -1)


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q, k: (B, heads, S, head_dim), rotated."""
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    q_embed = add(mul(q, cos), mul(rotate_half(q), sin))
    k_embed = add(mul(k, cos), mul(rotate_half(k), sin))
    return q_embed, k_embed


class RotaryEmbedding(Module):
    """``LlamaRotaryEmbedding``: two fp32 buffers of head_dim / 2, and cos and sin for a forward."""

    def __init__(self, head_dim: int) -> None:
        self.dim = head_dim
        self.buffers: tuple[Storage, ...] = ()

    def materialize(self) -> None:
        """``modeling_utils.py`` ``_move_missing_keys_from_meta_to_device``: inv_freq and
        original_inv_freq.
        """
        n = self.dim // 2 * FP32.itemsize
        self.buffers = (Storage(n), Storage(n))

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cos and sin, (1, S, head_dim) in the dtype of ``x``."""
        with no_grad():
            n = position_ids.shape[1]
            position_ids_expanded = empty((1, 1, n), FP32)
            freqs = empty((1, self.dim // 2, n), FP32)
            workspace()
            emb = empty((1, n, self.dim), FP32)
            cos = scale(unary(emb))
            sin = scale(unary(emb))
            out = to(cos, x.dtype), to(sin, x.dtype)
            del sin, cos, emb, freqs, position_ids_expanded
            return out
