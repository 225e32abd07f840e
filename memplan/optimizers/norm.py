"""Norms and means as optimizers take them of one tensor after the other.

Source:
    pytorch/pytorch v2.14.1 ``aten/src/ATen/native/LinearAlgebra.cpp`` ``linalg_vector_norm_out``,
    ``aten/src/ATen/native/cuda/ReduceNormKernel.cu``, ``ReduceMomentKernel.cu``: four elements to a
    load, whatever their dtype.
"""

from __future__ import annotations

from memplan.engine.reduction import borrow_over
from memplan.engine.tensor import Tensor, empty

LOAD = 4
"""Elements that a thread loads at once: ``vt0`` of ``gpu_reduce_kernel``."""


def norm(x: Tensor) -> Tensor:
    """``x.norm()``: one number in the dtype of ``x``."""
    out = empty((), x.dtype)
    borrow_over(x, range(len(x.shape)), LOAD)
    return out


def norm_over(x: Tensor, dim: int) -> Tensor:
    """``torch.norm(x, dim=dim)`` of a matrix."""
    out = empty((x.shape[1 - dim],), x.dtype)
    borrow_over(x, (dim,), LOAD)
    return out


def mean_over(x: Tensor, dim: int) -> Tensor:
    """``x.mean(dim=dim)``, ``dim`` counted from the end."""
    at = len(x.shape) + dim
    out = empty((*x.shape[:at], *x.shape[at + 1 :]), x.dtype)
    borrow_over(x, (at,), LOAD)
    return out
