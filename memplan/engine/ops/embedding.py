"""Embedding and its backward."""

from __future__ import annotations

from memplan.dtypes import FP32, INT64
from memplan.engine.autograd import Node, empty_like, needs_grad
from memplan.engine.ops import cub
from memplan.engine.sizes import ceil_div, round_up
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel

# EmbeddingBackwardKernel.cu
ROWS_PER_THREAD, MAX_BLOCK_SIZE, MAX_ATOMIC_BLOCKS_PER_SM = 10, 1024, 4


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """``embedding: weight: embedding_backward_symint(grad, indices, ...)``, dense."""
    shape = (*ids.shape, weight.shape[1])
    if not needs_grad(weight):
        return empty(shape, weight.dtype)
    sw, n = weight.shape, numel(ids.shape)

    def backward(grad: Tensor) -> tuple[Tensor]:
        if grad.strides is not None:
            grad = empty_like(grad)
        return (embedding_dense_backward(grad, sw, n),)

    return Node((weight,), (ids,), backward).finish(empty(shape, weight.dtype))


def embedding_dense_backward(grad: Tensor, shape: Shape, n: int) -> Tensor:
    """Up to 3072 indices: one kernel. More: sort, then sum segment by segment.

    Inferred: the sort takes no more bits than the vocabulary needs (recorded scratch sizes).
    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/Embedding.cu``,
    ``EmbeddingBackwardKernel.cu``.
    """
    if n <= 3072:
        return empty(shape, grad.dtype)
    vocabulary, width = shape
    sorted_indices, original = empty((n,), INT64), empty((n,), INT64)
    positions = empty((n,), INT64)
    temporary = Storage(cub.sort_pairs(n, vocabulary.bit_length()))
    del temporary, positions
    out = empty(shape, grad.dtype)
    segment_offsets, segments = empty((n,), INT64), empty((), INT64)
    scratch = empty((n,), INT64)
    temporary = Storage(cub.unique_by_key(n))
    del temporary, scratch
    most = min(n, vocabulary)
    partials, partial_offsets = empty((most,), INT64), empty((most,), INT64)
    temporary = Storage(cub.scan(most))
    del temporary
    partial_segments = empty((), INT64)
    bound = n // ROWS_PER_THREAD + most
    partial_segment_offset = empty((bound,), INT64)
    if adds_atomically(most, bound, width):
        partial_to_segment = empty((bound,), INT64)
        if grad.dtype is not FP32:
            accumulated = empty(shape, FP32)
            del accumulated
        del partial_to_segment
    else:
        per_segment = empty((bound, width), FP32)
        del per_segment
    del partial_segment_offset, partial_segments, partial_offsets, partials
    del segments, segment_offsets, original, sorted_indices
    return out


def adds_atomically(segments: int, partial_segments: int, width: int) -> bool:
    """Whether few rows get so many gradients that adding them up in two passes is too slow.

    Source: ``EmbeddingBackwardKernel.cu`` ``use_fused_kernel``.
    """
    warped = round_up(width, 32)
    blocks = ceil_div(segments * warped, min(warped, MAX_BLOCK_SIZE))
    if blocks >= S.kernels.sm_count * MAX_ATOMIC_BLOCKS_PER_SM:
        return False
    return partial_segments > blocks * 4
