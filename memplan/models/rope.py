"""Rotary position embeddings of all types.

Source: huggingface/transformers v5.18.0 models/llama/modeling_llama.py ``LlamaRotaryEmbedding``,
modeling_rope_utils.py.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP32, INT64
from memplan.engine import Storage, Tensor, empty, no_grad
from memplan.engine.nn import Module
from memplan.engine.ops.matmul import workspace
from memplan.engine.ops.pointwise import add, cat, mul, neg, scale, to, unary
from memplan.engine.ops.views import half, unsqueeze
from memplan.engine.reduction import borrow_full
from memplan.engine.state import count_flops
from memplan.models.config import ModelConfig
from memplan.models.rope_frequencies import dynamic_ntk_frequencies, longrope_frequencies


def rotate_half(x: Tensor) -> Tensor:
    """The second half negated, before the first."""
    x1 = half(x)
    x2 = half(x)
    return cat(neg(x2), x1, -1)


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q, k: (B, heads, S, head_dim), rotated."""
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    q_embed = add(mul(q, cos), mul(rotate_half(q), sin))
    k_embed = add(mul(k, cos), mul(rotate_half(k), sin))
    return q_embed, k_embed


class RotaryEmbedding(Module):
    """Two fp32 buffers of head_dim / 2, and cos and sin for a forward.

    Loading makes the buffers of every rope type alike; ``dynamic`` and ``longrope`` ask in every
    forward for the longest position, and may make new ones.
    """

    inv_freq: Storage
    original_inv_freq: Storage

    def __init__(self, config: ModelConfig) -> None:
        self.dim = config.head_dim
        self.rope_type, self.rope_parameters = config.rope_type, config.rope_parameters
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.long_seq_len: Tensor | None = None
        self.buffer_dtype = FP32

    def materialize(self) -> None:
        """``modeling_utils.py`` ``_move_missing_keys_from_meta_to_device``: two buffers."""
        n = self.dim // 2 * self.buffer_dtype.itemsize
        self.inv_freq, self.original_inv_freq = Storage(n), Storage(n)

    def forward(self, x: Tensor, position_ids: Tensor, past: int = 0) -> tuple[Tensor, Tensor]:
        """Cos and sin, (1, S, head_dim) in the dtype of ``x``, of positions after ``past``."""
        with no_grad():
            n = position_ids.shape[1]
            self.update(n, past)
            inv_freq_expanded = None
            if self.buffer_dtype is not FP32:
                inv_freq_expanded = empty((1, self.dim // 2, 1), FP32)
            position_ids_expanded = empty((1, 1, n), FP32)
            freqs = empty((1, self.dim // 2, n), FP32)
            count_flops(self.dim, n)
            workspace()
            emb = empty((1, n, self.dim), FP32)
            cos = scale(unary(emb))
            sin = scale(unary(emb))
            out = to(cos, x.dtype), to(sin, x.dtype)
            del sin, cos, emb, freqs, position_ids_expanded, inv_freq_expanded
            return out

    def update(self, n: int, past: int) -> None:
        """``dynamic_rope_update``."""
        if self.rope_type == "dynamic":
            self.dynamic_frequency_update(n, past)
        elif self.rope_type == "longrope":
            self.longrope_frequency_update(n, past)

    def dynamic_frequency_update(self, n: int, past: int) -> None:
        """New frequencies when a sequence is longer than any before, by its length on the device.

        The way back, for a shorter sequence later, is not modelled: a run has one length.
        """
        seq_len = longest_position(n)
        compare()  # seq_len > max_seq_len_cached
        if n + past > self.max_seq_len_cached:
            self.inv_freq = dynamic_ntk_frequencies(self.dim, self.rope_parameters["factor"])
            self.max_seq_len_cached, self.long_seq_len = n + past, seq_len
        compare()  # seq_len < original_max_seq_len

    def longrope_frequency_update(self, n: int, past: int) -> None:
        """The long factors in every forward of a sequence longer than the original length.

        A ``hasattr`` should keep them, but asks for ``None_long_inv_freq``: they are made again.
        """
        seq_len = longest_position(n)
        compare()  # seq_len > original_max_position_embeddings
        if n + past > self.rope_parameters["original_max_position_embeddings"]:
            self.inv_freq = longrope_frequencies(self.dim)
        else:
            self.inv_freq = self.original_inv_freq
        del seq_len


def longest_position(n: int) -> Tensor:
    """``torch.max(position_ids) + 1``, of ``n`` positions."""
    largest = empty((), INT64)
    borrow_full(n, INT64.itemsize)
    out = unary(largest)
    del largest
    return out


def compare() -> None:
    """A comparison on the device that the host reads."""
    answer = empty((), BOOL)
    del answer
