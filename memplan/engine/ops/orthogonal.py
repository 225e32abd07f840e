"""The QR decomposition of a matrix that trains.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/BatchLinearAlgebra.cpp`` ``linalg_qr``;
``torch/csrc/autograd/FunctionsManual.cpp`` ``linalg_qr_backward``;
``aten/src/ATen/native/cuda/linalg/BatchLinearAlgebra.cpp`` ``triangular_solve_kernel``.
"""

from __future__ import annotations

from memplan.dtypes import INT64
from memplan.engine.autograd import attach, needs_grad
from memplan.engine.ops.decomposition import orthogonal_factor
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import Meta, binary, unary
from memplan.engine.tensor import Storage, Tensor, empty, normal

ONE_BY_ONE = 64
"""Rows from which cuBLAS solves a triangle by itself, not as a batch of one."""


def orthogonal_columns(x: Tensor) -> Tensor:
    """``torch.linalg.qr(x).Q`` of a tall matrix, by columns; R is kept for the gradient.

    ``linalg_qr: A: linalg_qr_backward(grad_Q, grad_R, Q, R, mode)``: Q times ``syminvadj`` of the
    upper triangle of ``-Q.T @ grad``, the gradient added, solved by R.
    """
    n, r = x.shape
    Q, R = orthogonal_factor(x)
    Q.strides = normal((n, r), (1, n))
    if not needs_grad(x):
        return Q
    meta = Meta(Q)

    def backward(grad: Tensor) -> tuple[Tensor]:
        positive = product((r, r), grad.dtype, n)
        negative = unary(positive)
        del positive
        upper = unary(negative)
        symmetric = binary(upper, upper)
        turned = product((n, r), grad.dtype, r)
        del symmetric, upper, negative
        right = binary(turned, grad)
        del turned
        return (solved_by_triangle(right, meta),)

    return attach(Q, (x,), (Q, R), backward)


def solved_by_triangle(right: Tensor, result: Meta) -> Tensor:
    """``linalg_solve_triangular``: a copy by columns; addresses where it is a batch."""
    out = empty(result.shape, right.dtype, result.strides)
    batched = result.shape[1] < ONE_BY_ONE
    addresses = [Storage(INT64.itemsize) for _ in range(2)] if batched else []
    del addresses
    return out
