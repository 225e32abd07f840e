"""Scratch of CUB's device-wide primitives.

Each part of it is rounded to 256 B, and 255 B more are asked for.

Source: NVIDIA/cccl ``cub/util_device.cuh`` ``alias_temporaries``.
"""

from __future__ import annotations

from memplan.engine.sizes import ceil_div, round_up
from memplan.engine.state import S


def align(*parts: int) -> int:
    """Bytes of one allocation for all parts. [bytes]"""
    total = 255
    for p in parts:
        total = total + round_up(p, 256)
    return total


def scan(n: int) -> int:
    """``DeviceScan`` on int64: a 16-byte descriptor a tile of 896, and 32 more. [bytes]"""
    return align((ceil_div(n, 896) + 32) * 16, 1)


def unique_by_key(n: int) -> int:
    """``DeviceSelect::UniqueByKey`` on (int64, int64). [bytes]"""
    return align((ceil_div(n, S.kernels.cub_unique_tile) + 32) * 16, 1)


def sort_pairs(n: int, bits: int) -> int:
    """``DeviceRadixSort``, one sweep: bins (8 B x 256 a pass of 8 bits), look-back (4 B x 256 a
    tile), keys, values. [bytes]
    """
    look_back = ceil_div(n, S.kernels.cub_sort_tile) * 256 * 4
    return align(ceil_div(bits, 8) * 256 * 8, look_back, n * 8, n * 8, 1)
