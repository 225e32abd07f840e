"""Reductions, and the buffers that they borrow to meet in global memory.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/cuda/Reduce.cuh`` (``setReduceConfig``,
``gpu_reduce_kernel``), ``aten/src/ATen/TensorIterator.cpp`` (order and merging of dimensions,
32-bit splitting).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod

from memplan.dtypes import FP32, DType
from memplan.engine.kernels import Kernels
from memplan.engine.sizes import ceil_div, per_cell
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Storage, Tensor, empty, strides_of
from memplan.errors import ConfigError

MAX_THREADS = 512  # mnt_wrapper
WARP = 32
MIN_VALUES, MAX_VALUES = 16, 256  # values per thread
MAX_OFFSET = (1 << 31) - 1  # bytes that a kernel addresses with 32 bits
SEMAPHORE_BYTES = 4
MAX_SUMMED_BYTES = 1 << 44  # more than any card holds a hundred times; cut into 8,192 parts


def sum_to(grad: Tensor, shape: Shape) -> Tensor:
    """``at::sum_to``: a gradient summed to the shape of a broadcast operand.

    Source: ``aten/src/ATen/ExpandUtils.h`` ``sum_to``.
    """
    k = len(grad.shape) - len(shape)
    dims = [*range(k), *(i + k for i, d in enumerate(shape) if d == 1 and grad.shape[i + k] != 1)]
    out = empty(shape, grad.dtype)
    borrow_over(grad, dims)
    return out


def borrow(outputs: int, inputs: int) -> None:
    """Make and drop what a sum of a contiguous (inputs, outputs) over its rows borrows."""
    borrow_over(Tensor((inputs, outputs), FP32, None), (0,))


def borrow_full(n: int, itemsize: int) -> None:
    """Make and drop what a reduction of ``n`` elements to one borrows; it adds in their dtype."""
    kernels = S.kernels
    buffer_bytes = per_cell(lambda size: of_all(size, itemsize, kernels)[0], n)
    if buffer_bytes:
        buffer = Storage(buffer_bytes)
        semaphores = Storage(per_cell(lambda size: of_all(size, itemsize, kernels)[1], n))
        del semaphores, buffer


@lru_cache(maxsize=1 << 18)  # a grid asks for the same sizes in every step
def of_all(n: int, itemsize: int, kernels: Kernels) -> tuple[int, int]:
    """Bytes of (buffer, semaphores) of a reduction of ``n`` elements to one. [bytes]"""
    return workspace(Iterator.of((n,), (1,), frozenset((0,)), itemsize), itemsize, 4, kernels)


def borrow_over(x: Tensor, dims: Iterable[int], half_vec: int = 8) -> None:
    """Make and drop what a sum of ``x``, or ``all`` of bools, over ``dims`` borrows.

    Args:
        x: What is reduced.
        dims: Over which of its dimensions.
        half_vec: Elements of 16 bits that a thread loads at once (``input_vec_size``).
    """
    reduced = frozenset(dims)
    if is_row_sum(x, reduced):
        return
    first = answer(x, reduced, 0, half_vec)
    if first >= 0:
        accumulator = Storage(first) if first else None
        at = 1
        while (buffer_bytes := answer(x, reduced, at, half_vec)) >= 0:
            if buffer_bytes:
                buffer = Storage(buffer_bytes)
                semaphores = Storage(answer(x, reduced, at + 1, half_vec))
                del semaphores, buffer
            at += 2
        del accumulator


def is_row_sum(x: Tensor, reduced: frozenset[int]) -> bool:
    """Whether ``x``, in 32 bits, is summed along rows that one block reads: nothing is borrowed.

    ``setReduceConfig`` gives such a row a full warp, of which no thread reads 256 values, however
    many rows there are and however they are split for 32-bit indexing. Only saves time.
    """
    if x.strides is not None or reduced != {len(x.shape) - 1} or x.dtype is not FP32:
        return False
    width = x.shape[-1]
    return width <= (MAX_VALUES - 1) * WARP


def answer(x: Tensor, reduced: frozenset[int], index: int, half_vec: int) -> int:
    """One number of the plan for a sum of ``x``; -1 past its end. [bytes]"""
    n, dtype, kernels = len(x.shape), x.dtype, S.kernels

    def of(*sizes: int) -> int:
        plan = sum_plan(sizes[:n], sizes[n:], reduced, dtype, kernels, half_vec)
        return plan[index] if index < len(plan) else -1

    return per_cell(of, *x.shape, *strides_of(x))


@cache
def sum_plan(
    shape: Shape,
    strides: Shape,
    reduced: frozenset[int],
    dtype: DType,
    kernels: Kernels,
    half_vec: int = 8,
) -> tuple[int, ...]:
    """What a sum borrows: the accumulation buffer, then buffer and semaphores by kernel. [bytes]

    16-bit floats are added in fp32, ``half_vec`` to a load.

    Source: ``aten/src/ATen/native/cuda/ReduceSumProdKernel.cu``.

    Returns:
        Nothing at all where nothing is borrowed.
    """
    if prod(shape) * dtype.itemsize > MAX_SUMMED_BYTES:
        raise ConfigError(
            f"a sum over {prod(shape) * dtype.itemsize:,} bytes in one tensor: no run is that "
            "large; micro_batch_size or seq_len is a slip, or the attention wants another kernel."
        )
    half = dtype.itemsize == 2
    iterator = Iterator.of(shape, strides, reduced, dtype.itemsize)
    parts = iterator.within_32_bits()
    accumulator = iterator.output_bytes() * 2 if half and len(parts) > 1 else 0
    plan = [accumulator]
    for p in parts:
        plan += workspace(p, 4 if half else dtype.itemsize, half_vec if half else 4, kernels)
    return tuple(plan) if any(plan) else ()


@dataclass(frozen=True, slots=True)
class Dim:
    """One merged dimension: its size, and its strides in the input and the output. [bytes]"""

    size: int
    stride: int
    out_stride: int


@dataclass(frozen=True, slots=True)
class Iterator:
    """``TensorIterator`` of a reduction: reduced dimensions first, each part innermost first."""

    dims: tuple[Dim, ...]
    itemsize: int

    @classmethod
    def of(cls, shape: Shape, strides: Shape, reduced: frozenset[int], itemsize: int) -> Iterator:
        """``reorder_dimensions`` and ``coalesce_dimensions``."""
        dims, n = [], 1
        for i in reversed(range(len(shape))):
            out = 0 if i in reduced or shape[i] == 1 else n * itemsize
            n = n if i in reduced else n * shape[i]
            dims.append(Dim(shape[i], strides[i] * itemsize, out))
        dims = [d for d in dims if d.size != 1]
        dims.sort(key=lambda d: (d.out_stride != 0, d.out_stride or d.stride))
        return cls(tuple(merge(dims)), itemsize)

    @property
    def reduced(self) -> tuple[Dim, ...]:
        """The dimensions that are summed over."""
        return tuple(d for d in self.dims if d.out_stride == 0)

    @property
    def kept(self) -> tuple[Dim, ...]:
        """The dimensions of the output."""
        return tuple(d for d in self.dims if d.out_stride != 0)

    def output_bytes(self) -> int:
        """``output_memory_size`` of the accumulation buffer, in the output's dtype. [bytes]"""
        return max([self.itemsize, *(d.size * d.out_stride for d in self.dims)])

    def fits(self) -> bool:
        """``can_use_32bit_indexing``."""
        if product(self.dims) > MAX_OFFSET:
            return False
        spans = [
            1 + sum((d.size - 1) * s for d, s in zip(self.dims, side, strict=True))
            for side in ([d.stride for d in self.dims], [d.out_stride for d in self.dims])
        ]
        return max(spans) <= MAX_OFFSET

    def within_32_bits(self) -> list[Iterator]:
        """``with_32bit_indexing``: halves along the widest dimension, until each part fits."""
        if self.fits():
            return [self]
        widest = max(
            reversed(range(len(self.dims))),
            key=lambda i: (
                (self.dims[i].size - 1) * max(self.dims[i].stride, self.dims[i].out_stride)
            ),
        )
        half = self.dims[widest].size // 2
        return [
            part
            for size in (half, self.dims[widest].size - half)
            for part in self.narrowed(widest, size).within_32_bits()
        ]

    def narrowed(self, at: int, size: int) -> Iterator:
        """The same with one dimension cut."""
        d = self.dims[at]
        cut = Dim(size, d.stride, d.out_stride)
        return Iterator((*self.dims[:at], cut, *self.dims[at + 1 :]), self.itemsize)


def merge(dims: list[Dim]) -> list[Dim]:
    """Neighbours that step alike in both operands become one dimension."""
    out: list[Dim] = []
    for d in dims:
        last = out[-1] if out else None
        if (
            last is not None
            and last.size * last.stride == d.stride
            and last.size * last.out_stride == d.out_stride
        ):
            out[-1] = Dim(last.size * d.size, last.stride, last.out_stride)
        else:
            out.append(d)
    return out


def product(dims: Iterable[Dim]) -> int:
    """Elements that the dimensions span."""
    n = 1
    for d in dims:
        n *= d.size
    return n


def last_power_of_2(n: int) -> int:
    """The largest power of two that is not above ``n``."""
    return 1 << (max(n, 1).bit_length() - 1)


def block(dim0: int, dim1: int, threads: int) -> tuple[int, int]:
    """(width, height) of a thread block. Source: ``set_block_dimension``."""
    dim0 = last_power_of_2(dim0) if dim0 < threads else threads
    dim1 = last_power_of_2(dim1) if dim1 < threads else threads
    width = min(dim0, WARP)
    height = min(dim1, threads // width)
    return min(dim0, threads // height), height


def output_vec_size(iterator: Iterator) -> int:
    """Outputs a thread loads at once. Source: ``get_output_vec_size``."""
    vec, first = 4, iterator.kept[0]
    divisors = [
        first.size,
        *(d.stride // iterator.itemsize for d in iterator.dims if d is not first),
    ]
    for n in divisors:
        while n % vec:
            vec //= 2
    return vec


def workspace(
    iterator: Iterator, acc_size: int, input_vec_size: int, kernels: Kernels
) -> tuple[int, int]:
    """Bytes of (buffer, semaphores): enough values a thread are split over blocks. [bytes]

    Source: ``setReduceConfig``, ``global_memory_size``, ``semaphore_size``.
    """
    outputs, inputs = product(iterator.kept), product(iterator.reduced)
    along = not iterator.kept or bool(
        iterator.reduced and iterator.reduced[0].stride < iterator.kept[0].stride
    )
    dim0, dim1 = (inputs, outputs) if along else (outputs, inputs)
    fastest = (iterator.reduced if along else iterator.kept or iterator.reduced)[:1]
    vec = 1
    if fastest and fastest[0].stride == iterator.itemsize:
        if not along:
            vec = output_vec_size(iterator)
            dim0 //= vec
        elif dim0 >= 128 and len(iterator.reduced) == 1:
            dim0 //= input_vec_size
    width, height = block(dim0, dim1, MAX_THREADS // vec)
    step_input, step_output = (width, 1) if along else (1, width)
    across_warps = ceil_div(inputs, step_input) >= min(height * 16, MAX_VALUES)
    if not across_warps:
        return 0, 0
    values = ceil_div(inputs, step_input * height)
    grid = ceil_div(outputs // vec, step_output)
    target = kernels.sm_count * (kernels.threads_per_sm // (width * height))
    if values < MAX_VALUES or grid > target:
        return 0, 0
    ctas = min(
        max(ceil_div(target, grid), ceil_div(values, MAX_VALUES)), ceil_div(values, MIN_VALUES)
    )
    if ctas <= 1:
        return 0, 0
    partials = 1 if along else width * vec
    return acc_size * outputs * ctas * partials, SEMAPHORE_BYTES * grid
