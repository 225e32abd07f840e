"""How c10's caching allocator rounds requests and sizes segments.

Inside this package sizes and addresses count granules of 512 bytes: every one of them is a multiple
of it, and CPython is quicker with small integers. What enters and leaves the package is in bytes.

Source:
    pytorch/pytorch v2.14.1 ``c10/core/AllocatorConfig.h``: ``kMinBlockSize``, ``kSmallSize``,
    ``kSmallBuffer``, ``kMinLargeAlloc``, ``kRoundLarge``.
"""

from __future__ import annotations

from memplan.units import MIB

GRANULE = 512
"""``kMinBlockSize``: what every block's size and address is a multiple of. [bytes]"""
GRANULE_BITS = 9
GRANULES_PER_MIB = MIB >> GRANULE_BITS

SMALL_SIZE = GRANULES_PER_MIB
"""``kSmallSize``: the largest block of the small pool. [granules]"""
SMALL_SEGMENT = 2 * GRANULES_PER_MIB
"""``kSmallBuffer``: a segment of the small pool. [granules]"""
MIN_LARGE_ALLOC = 10 * GRANULES_PER_MIB
"""``kMinLargeAlloc``: from here on, a segment is as large as its first block. [granules]"""
ROUND_LARGE = 2 * GRANULES_PER_MIB
"""``kRoundLarge``: what such a segment is rounded up to. [granules]"""
ROUNDUP_INTERVALS = 16
"""Powers of two, from 1 MiB to 32 GiB, that can have their own ``roundup_power2_divisions``."""


def granules(nbytes: int) -> int:
    """Whole granules in ``nbytes``, rounded down. [granules]"""
    return nbytes >> GRANULE_BITS


def block_size(nbytes: int, divisions: tuple[int, ...] = ()) -> int:
    """Size of the block that a request needs. [granules]

    Args:
        nbytes: The request, at least one. [bytes]
        divisions: ``roundup_power2_divisions``, one a power of two; empty: requests are rounded to
            granules only.

    Source:
        pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``round_size``.

    Example:
        >>> block_size(1), block_size(512), block_size(513)
        (1, 1, 2)
    """
    if divisions:
        count = divisions_at(nbytes, divisions)
        if count > 1 and nbytes > GRANULE * count:
            return granules(next_division(nbytes, count))
    return -(-nbytes // GRANULE)


def divisions_at(nbytes: int, divisions: tuple[int, ...]) -> int:
    """Divisions of the power of two that ``nbytes`` lies above.

    Source:
        pytorch/pytorch v2.14.1 ``c10/core/AllocatorConfig.cpp``: ``roundup_power2_divisions``.
    """
    interval = nbytes.bit_length() - MIB.bit_length()
    return divisions[min(max(interval, 0), ROUNDUP_INTERVALS - 1)]


def next_division(nbytes: int, count: int) -> int:
    """``nbytes`` rounded up to a part, one of ``count``, of the power of two below it. [bytes]

    Source:
        pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``:
        ``roundup_power2_next_division``.

    Example:
        >>> next_division(1200, 4)
        1280
    """
    floor = 1 << (nbytes.bit_length() - 1)
    part = floor // count
    return -(-nbytes // part) * part


def segment_size(size: int, large_segment: int) -> int:
    """Size of the segment that is taken from CUDA for a block. [granules]

    Args:
        size: The block. [granules]
        large_segment: Segment of blocks of more than 1 MiB and less than 10 MiB. [granules]

    Source:
        pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``get_allocation_size``.
    """
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE_ALLOC:
        return large_segment
    return -(-size // ROUND_LARGE) * ROUND_LARGE
