"""Reductions, and the buffers that they borrow to meet in global memory."""

from __future__ import annotations

from memplan.engine.kernels import Kernels
from memplan.engine.sizes import ceil_div, per_cell
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel


def sum_to(grad: Tensor, shape: Shape) -> Tensor:
    """``at::sum_to``: a gradient summed to the shape of a broadcast operand.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/ExpandUtils.h`` ``sum_to``.
    """
    out = empty(shape, grad.dtype)
    if len(shape) < len(grad.shape):
        borrow(numel(shape), numel(grad.shape[: len(grad.shape) - len(shape)]))
    return out


def borrow(outputs: int, inputs: int) -> None:
    """Make and drop the buffer and the semaphores of a reduction of ``inputs`` rows onto
    ``outputs`` columns.
    """
    kernels = S.kernels
    buffer_bytes = per_cell(lambda o, i: row_sum_workspace(o, i, kernels)[0], outputs, inputs)
    if buffer_bytes > 0:
        semaphores_bytes = per_cell(
            lambda o, i: row_sum_workspace(o, i, kernels)[1], outputs, inputs
        )
        buffer = Storage(buffer_bytes)
        semaphores = Storage(semaphores_bytes)
        del semaphores, buffer


def last_power_of_2(n: int) -> int:
    """The largest power of two that is not above ``n``."""
    return 1 << (max(n, 1).bit_length() - 1)


def row_sum_workspace(outputs: int, inputs: int, kernels: Kernels) -> tuple[int, int]:
    """Bytes of (buffer, semaphores) for a sum over the outer dimensions of a contiguous tensor.
    [bytes]

    Enough rows are split over blocks, which meet in global memory.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/Reduce.cuh`` ``setReduceConfig``.
    """
    vec = 4 if outputs % 4 == 0 else 2 if outputs % 2 == 0 else 1
    dim0, top = outputs // vec, 512 // vec
    width = min(last_power_of_2(min(dim0, top)), 32)
    height = min(last_power_of_2(min(inputs, top)), top // width)
    width = min(last_power_of_2(min(dim0, top)), top // height)
    if not (inputs >= height * 16 or inputs >= 256):
        return 0, 0
    values = ceil_div(inputs, height)
    target = kernels.sm_count * (kernels.threads_per_sm // (width * height))
    grid = ceil_div(dim0, width)
    if values < 256 or grid > target:
        return 0, 0
    ctas = max(min(ceil_div(target, grid), ceil_div(values, 16)), ceil_div(values, 256))
    return (4 * outputs * ctas * width * vec, 4 * grid) if ctas > 1 else (0, 0)
