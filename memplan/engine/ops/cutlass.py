"""The kernels of memory-efficient attention's backward: their tiles, and which of them runs.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/cuda/mem_eff_attention/``
``kernels/cutlassB.h`` (which kernels there are, and in which order they are tried) and
``kernel_backward.h`` (what they borrow). The shared memory of each, ``sizeof(SharedStorage)``, was
read off torch 2.14.1's launches on the virtual GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.kernels import Kernels
from memplan.engine.sizes import ceil_div, round_up
from memplan.errors import UnsupportedError

ANY = 65536  # kMaxK of the kernels for any head size


@dataclass(frozen=True, slots=True)
class BackwardKernel:
    """One kernel of ``cutlassB``.

    Attributes:
        rows: ``kBlockSizeI``, queries a block. [elements]
        columns: ``kBlockSizeJ``, keys a block. [elements]
        widest: ``kMaxK``, the widest head. [elements]
        shared_bytes: Shared memory of a block. [bytes]
        half: 16-bit operands.
        computes_delta: ``kKernelComputesDelta``.
        only: Compute capabilities it is for, where the list says so.
        dropout_bytes: Shared memory of a block of its twin that drops weights; None: no twin.
    """

    rows: int
    columns: int
    widest: int
    shared_bytes: int
    half: bool = True
    computes_delta: bool = True
    only: tuple[tuple[int, int], ...] = ()
    dropout_bytes: int | None = None

    @property
    def output_in_registers(self) -> bool:
        """``kOutputInRF``: dK and dV need no place in memory until they are done."""
        return self.half and self.widest <= self.rows

    @property
    def accumulates_keys(self) -> bool:
        """``kNeedsAccumGradK``: dK and dV are added up in fp32, in memory."""
        return self.half and not self.output_in_registers


def half(
    rows: int, columns: int, widest: int, shared_bytes: int, dropout_bytes: int = 0
) -> BackwardKernel:
    """A kernel for 16 bits."""
    dropout_bytes = dropout_bytes or shared_bytes
    return BackwardKernel(rows, columns, widest, shared_bytes, dropout_bytes=dropout_bytes)


def single(rows: int, columns: int, widest: int, shared_bytes: int) -> BackwardKernel:
    """A kernel for fp32: torch computes its delta."""
    kernel = half(rows, columns, widest, shared_bytes)
    return replace(kernel, half=False, computes_delta=False)


# Left out: `*_seqaligned` kernels, which have the tiles and the shared memory of the one after
# them, and those in whose place another one of the list borrows just as much, or always runs.
AMPERE_K96 = replace(half(128, 64, 96, 91648), only=((8, 6), (8, 9)), dropout_bytes=None)
SM80_FP16 = (
    half(64, 64, 32, 40192),
    half(64, 64, 64, 44288, 52480),
    AMPERE_K96,
    half(128, 128, 128, 154112, 162304),
    half(64, 64, 128, 34048),
    half(128, 64, ANY, 60928),
)
SM80_BF16 = (
    half(64, 64, 32, 34560, 39168),
    half(64, 64, 64, 42240, 51456),
    AMPERE_K96,
    half(128, 128, 128, 133632, 152064),
    half(64, 64, 128, 34048),
    half(128, 64, ANY, 60928),
)
SM80_FP32 = (
    single(64, 64, 64, 53504),
    single(128, 64, 128, 121344),
    single(64, 64, 128, 67840),
    single(128, 64, ANY, 121344),
    single(64, 64, ANY, 67840),
)
SM75_FP16 = (
    half(64, 64, 64, 27904),
    half(128, 64, 128, 54784),
    half(64, 64, 128, 27904),
    half(128, 64, ANY, 54784),
    half(64, 64, ANY, 27904),
)
SM70_FP16 = (
    half(64, 64, 64, 25088),
    half(128, 64, 128, 50176),
    replace(half(64, 64, 128, 25088), computes_delta=False),
    replace(half(128, 64, ANY, 50176), computes_delta=False),
)
SM70_FP32 = (single(64, 64, ANY, 37120),)

# (oldest compute capability, dtype) -> kernels, newest first
TABLE: tuple[tuple[tuple[int, int], DType, tuple[BackwardKernel, ...]], ...] = (
    ((8, 0), BF16, SM80_BF16),
    ((8, 0), FP16, SM80_FP16),
    ((8, 0), FP32, SM80_FP32),
    ((7, 5), FP16, SM75_FP16),
    ((7, 0), FP16, SM70_FP16),
    ((7, 0), FP32, SM70_FP32),
)


def backward_kernel(
    dtype: DType, head_dim: int, kernels: Kernels, *, drops: bool = False
) -> BackwardKernel:
    """The first kernel that takes the head and the card's shared memory.

    Source: ``attention_backward.cu`` ``launchKernel``.
    """
    capability = kernels.compute_capability
    candidates = next((ks for c, d, ks in TABLE if d is dtype and capability >= c), ())
    for k in candidates:
        shared = k.dropout_bytes if drops else k.shared_bytes
        if shared is None or shared > kernels.shared_memory_per_block:
            continue
        if k.widest >= head_dim and (not k.only or capability in k.only):
            return k
    raise UnsupportedError(
        f"attention: no memory-efficient backward kernel for {dtype} on compute capability "
        f"{capability[0]}.{capability[1]}"
    )


def backward_workspace(
    k: BackwardKernel, batch: int, heads: int, queries: int, keys: int, head_dim: int
) -> int:
    """Bytes that a backward kernel borrows. [bytes]

    A tile and a lock for each block of dQ; where dK and dV do not fit into registers, tiles for
    them, for each split of the keys.

    Source: ``kernel_backward.h`` ``workspace_strideBH``; ``attention_backward.cu``, its splits.
    """
    splits = ceil_div(keys, k.columns)
    if batch * heads >= 256 and keys <= 2 * k.columns:
        splits = 1
    if k.accumulates_keys:
        splits = max(1, min(splits, 200 // (batch * heads)))
    per_key = splits * k.columns * round_up(head_dim, k.rows) if k.accumulates_keys else 0
    tiles = ceil_div(queries, k.rows) * ceil_div(head_dim, k.columns)
    floats = 2 * per_key + tiles * (k.rows * k.columns + 4)
    return batch * heads * round_up(floats, 4) * 4
