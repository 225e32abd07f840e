"""Decompositions of a matrix by cuSOLVER, without a graph.

Assumption: cuSOLVER borrows nothing, as on the virtual GPU; only cuSOLVER knows what it borrows.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/BatchLinearAlgebra.cpp`` ``linalg_svd``,
``linalg_qr``.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, INT32
from memplan.engine.tensor import Tensor, empty


def singular_values(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.linalg.svd(x, full_matrices=False)``: (U, S, Vh).

    The input is copied, and two answers tell whether it converged.
    """
    m, n = x.shape
    k = min(m, n)
    U, Vh = empty((m, k), x.dtype), empty((k, n), x.dtype)
    S = empty((k,), x.dtype)
    info = empty((), INT32)
    copy = empty(x.shape, x.dtype)
    del copy
    failed = empty((), BOOL)
    any_failed = empty((), BOOL)
    del any_failed, failed, info
    return U, S, Vh


def orthogonal_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.linalg.qr``: (Q, R), one of which the input is factored in."""
    m, n = x.shape
    k = min(m, n)
    Q, R = empty((m, k), x.dtype), empty((k, n), x.dtype)
    tau = empty((k,), x.dtype)
    for _ in range(2):  # one answer of the factorisation, one of writing Q out
        info = empty((), INT32)
        del info
    del tau
    return Q, R
