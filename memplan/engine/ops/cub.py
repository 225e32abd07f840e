"""Scratch of CUB's device-wide primitives.

Each part of it is rounded to 256 B, and 255 B more are asked for. The tiles' sizes are in
``memplan.engine.kernels``.

Source: NVIDIA/cccl v3.0.1, which torch 2.14.1+cu130 is built with:
``cub/util_temporary_storage.cuh`` ``AliasTemporaries``.
"""

from __future__ import annotations

from memplan.engine.sizes import ceil_div, round_up
from memplan.engine.state import S

# tuning_scan.cuh, DefaultPolicy for eight bytes and torch's own SumOp, on every architecture
SCAN_TILE = 128 * 7
DESCRIPTOR_BYTES = 16  # cub/agent/single_pass_scan_operators.cuh, ScanTileState<8 bytes, true>
PADDING_TILES = 32  # one warp of descriptors before the first tile
RADIX_DIGITS = 256  # ONESWEEP_RADIX_BITS = 8


def align(*parts: int) -> int:
    """Bytes of one allocation for all parts. [bytes]"""
    total = 255
    for p in parts:
        total = total + round_up(p, 256)
    return total


def tile_states(n: int, tile: int) -> int:
    """Descriptors of the tiles of a decoupled look-back. [bytes]

    They are aligned once here, and again by the caller.

    Source: ``cub/agent/single_pass_scan_operators.cuh`` ``tile_state_allocation_size``.
    """
    return align((ceil_div(n, tile) + PADDING_TILES) * DESCRIPTOR_BYTES)


def scan(n: int) -> int:
    """``DeviceScan`` on int64. [bytes] Source: ``cub/device/dispatch/dispatch_scan.cuh``."""
    return align(tile_states(n, SCAN_TILE))


def unique_by_key(n: int) -> int:
    """``DeviceSelect::UniqueByKey`` on (int64, int64). [bytes]

    Source: ``cub/device/dispatch/dispatch_unique_by_key.cuh``.
    """
    return align(tile_states(n, S.kernels.cub_unique_tile))


def sort_pairs(n: int, bits: int) -> int:
    """``DeviceRadixSort::SortPairs``, one sweep, of int64 pairs by their low ``bits``. [bytes]

    Bins (8 B x 256 a pass), look-back (4 B x 256 a tile), a copy of keys and values unless one
    pass is enough, counters.

    Source: ``cub/device/dispatch/dispatch_radix_sort.cuh`` ``InvokeOnesweep``.
    """
    passes = ceil_div(bits, 8)
    look_back = ceil_div(n, S.kernels.cub_sort_tile) * RADIX_DIGITS * 4
    copy = n * 8 if passes > 1 else 0
    return align(passes * RADIX_DIGITS * 8, look_back, copy, copy, passes * 4)
