"""The largest entries of rows, and rows of a table that trains, taken by their numbers.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.dtypes import INT64
from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.ops import cub
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel

SINGLE_TILE = 256 * 9
"""Pairs of eight bytes each that one block sorts, with a scratch of one byte.

Source: NVIDIA/cccl v3.0.1 ``cub/device/dispatch/tuning/tuning_radix_sort.cuh`` SingleTilePolicy,
``cub/device/dispatch/dispatch_radix_sort.cuh`` ``InvokeSingleTile``.
"""


def topk(self: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``topk(k, dim=-1)`` of short rows: (values, indices).

    ``topk: self: value_selecting_reduction_backward``: zeros, and the gradient put into them.
    """
    shape, old = (*self.shape[:-1], k), self.shape
    values, indices = empty(shape, self.dtype), empty(shape, INT64)
    if not needs_grad(self):
        return values, indices
    attach(values, (self,), (indices,), lambda grad: (empty(old, grad.dtype),))
    return values, indices


def splits_rows(rows: int, length: int) -> bool:
    """Whether ``topk`` gives a row to several blocks, or sorts it, which borrow memory.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/TensorTopK.cu``
    ``should_use_multiblock``, ``should_use_sort``.
    """
    shortest = ((20, 20000), (40, 10000), (80, 8000), (199, 5000), (799, 3000), (4000, 800))
    least = next((length_ for most, length_ in shortest if rows <= most), 400)
    return length >= least


def rows_of(table: Tensor, indices: Tensor) -> Tensor:
    """``table[indices]`` of a matrix: ``index.Tensor: self: index_backward``."""
    shape, old = (*indices.shape, table.shape[1]), table.shape
    if not needs_grad(table):
        return empty(shape, table.dtype)
    n = numel(indices.shape)

    def backward(grad: Tensor) -> tuple[Tensor]:
        return (index_backward(grad, old, n),)

    return Node((table,), (indices,), backward).finish(empty(shape, table.dtype))


def index_backward(grad: Tensor, shape: Shape, n: int) -> Tensor:
    """Zeros, into which rows are added in the order of their sorted numbers.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/Indexing.cu``
    ``index_put_with_sort_kernel``.
    """
    out = empty(shape, grad.dtype)
    wrapped = empty((n,), INT64)
    linear_index = empty((n,), INT64)
    del wrapped
    if grad.strides is not None:
        grad = empty(grad.shape, grad.dtype)
    sorted_indices, original = empty((n,), INT64), empty((n,), INT64)
    positions = empty((n,), INT64)
    bits = max(1, (shape[0] - 1).bit_length())
    temporary = Storage(1 if n <= SINGLE_TILE else cub.sort_pairs(n, bits))
    del temporary, positions, original, sorted_indices, linear_index
    return out
