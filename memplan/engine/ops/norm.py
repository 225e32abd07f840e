"""Norms of the rows or columns of a matrix, and the identity.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP32
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.ops.pointwise import Meta, binary, unary
from memplan.engine.reduction import Iterator, workspace
from memplan.engine.sizes import per_cell
from memplan.engine.state import S
from memplan.engine.tensor import Storage, Tensor, empty, strides_of

VALUES_PER_LOAD = 4
"""Inputs that ``gpu_reduce_kernel`` loads at once unless told otherwise."""


def norms(self: Tensor, dim: int) -> Tensor:
    """``self.norm(dim=dim)`` of a matrix: ``linalg_vector_norm``, which autocast has give fp32.

    The kernel itself casts what it reads.

    ``linalg_vector_norm: self: linalg_vector_norm_backward``:
    ``grad * (self / norm).masked_fill_(norm == 0, 0)``.
    """
    shape = (self.shape[1 - dim],)
    dtype = self.dtype if S.autocast is None else FP32
    m = Meta(self)

    def backward(grad: Tensor) -> tuple[Tensor]:
        quotient = unary(m, grad.dtype)
        is_zero = empty(grad.shape, BOOL)
        out = binary(quotient, m)
        del quotient, is_zero
        return (out,)

    node = Node((self,), (self,), backward) if needs_grad(self) else None
    out = empty(shape, dtype)
    borrow_for_norm(self, dim)
    return out if node is None else node.finish(out, (out,))


def borrow_for_norm(x: Tensor, dim: int) -> None:
    """Make and drop what the norms of a matrix along a dimension borrow.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/ReduceNormKernel.cu``;
    ``aten/src/ATen/native/cuda/Reduce.cuh`` ``AccumulationBuffer``.
    """
    first = norm_borrows(x, dim, 0)
    accumulator = Storage(first) if first else None
    at = 1
    while (buffer_bytes := norm_borrows(x, dim, at)) >= 0:
        if buffer_bytes:
            buffer = Storage(buffer_bytes)
            semaphores = Storage(norm_borrows(x, dim, at + 1))
            del semaphores, buffer
        at += 2
    del accumulator


def norm_borrows(x: Tensor, dim: int, index: int) -> int:
    """One number of the plan; -1 past its end. [bytes]

    First what 16-bit norms are added in where 32 bits do not address the matrix, then (buffer,
    semaphores) of each kernel.
    """
    n, itemsize, kernels = len(x.shape), x.dtype.itemsize, S.kernels
    half = itemsize < FP32.itemsize and S.autocast is None

    def of(*sizes: int) -> int:
        whole = Iterator.of(sizes[:n], sizes[n:], frozenset((dim,)), itemsize)
        parts = whole.within_32_bits()
        plan = [whole.output_bytes() * 2 if half and len(parts) > 1 else 0]
        plan += [b for p in parts for b in workspace(p, FP32.itemsize, VALUES_PER_LOAD, kernels)]
        return plan[index] if index < len(plan) else -1

    return per_cell(of, *x.shape, *strides_of(x))


def eye(n: int, like: Tensor) -> Tensor:
    """``torch.eye(n)`` in the dtype of another tensor."""
    return empty((n, n), like.dtype)
