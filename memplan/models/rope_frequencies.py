"""Inverse frequencies that are made on the device in a forward, not while loading.

The expressions allocate as they are written: one small block for each operation, freed
when Python drops the value.

Source: huggingface/transformers v5.18.0 modeling_rope_utils.py ``_compute_dynamic_ntk_parameters``,
``_compute_longrope_parameters``.
"""

from __future__ import annotations

from memplan.dtypes import FP32, FP64, INT64
from memplan.engine import Storage, Tensor, empty
from memplan.engine.ops.pointwise import to, unary


def dynamic_ntk_frequencies(dim: int, factor: int | float) -> Storage:
    """``1.0 / (base ** (torch.arange(0, dim, 2) / dim))``, base from the length on the device.

    The base is ``base * ((factor * seq_len / max) - (factor - 1)) ** (dim / (dim - 2))``.
    """
    limit = empty((), INT64)  # torch.tensor(max_position_embeddings)
    seq_len = unary(limit)  # torch.maximum
    del limit
    base = unary(seq_len, INT64 if isinstance(factor, int) else FP32)
    for _ in ("/ max", "- (factor - 1)", "** exponent", "base *"):
        base = unary(base, FP32)
    inv_freq = reciprocal(unary(unary(empty((dim // 2,), FP32))))  # the range comes from the host
    del base, seq_len
    return inv_freq


def longrope_frequencies(dim: int) -> Storage:
    """``1.0 / (ext_factors * base ** (torch.arange(0, dim, 2).float() / dim))``."""
    ext_factors = empty((dim // 2,), FP32)
    inv_freq_shape = exponents(dim)
    inv_freq = reciprocal(unary(power_of_number(inv_freq_shape)))
    del inv_freq_shape, ext_factors
    return inv_freq


def exponents(dim: int) -> Tensor:
    """``torch.arange(0, dim, 2, device).float() / dim``."""
    return unary(to(empty((dim // 2,), INT64), FP32))


def power_of_number(exponent: Tensor) -> Tensor:
    """``number ** tensor``: the result, then the number as a tensor.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/Pow.cpp`` ``pow.Scalar_out``.
    """
    out = unary(exponent)
    number = empty((), FP64)
    del number
    return out


def reciprocal(x: Tensor) -> Storage:
    """``1.0 / x``: the reciprocal, then its product with the number."""
    inverse = unary(x)
    out: Storage = unary(inverse).storage
    del inverse
    return out
