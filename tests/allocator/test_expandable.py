"""``expandable_segments:True``: segments that grow and shrink by pages."""

from __future__ import annotations

import pytest

from memplan.allocator import OutOfMemory, build_allocator
from memplan.allocator.config import AllocatorConfig
from memplan.allocator.expandable import ExpandableAllocator
from memplan.allocator.rounding import GRANULE
from memplan.units import MIB


def build(capacity_bytes: int | None = None) -> ExpandableAllocator:
    config = AllocatorConfig(expandable_segments=True)
    allocator = build_allocator(config, capacity_bytes=capacity_bytes)
    assert isinstance(allocator, ExpandableAllocator)
    return allocator


def reserved(allocator: ExpandableAllocator) -> int:
    return allocator.reserved * GRANULE


def test_the_large_pool_grows_by_20_mib_and_the_small_one_by_2() -> None:
    a = build()
    a.malloc(1)
    assert reserved(a) == 2 * MIB
    a.malloc(50 * MIB)
    assert reserved(a) == 62 * MIB
    a.malloc(10 * MIB)
    assert reserved(a) == 62 * MIB
    a.malloc(2 * MIB)
    assert reserved(a) == 82 * MIB


def test_every_rest_is_split_off() -> None:
    a = build()
    a.malloc(20 * MIB - 512)
    assert a.allocated * GRANULE == 20 * MIB - 512


def test_freed_blocks_merge_and_grow_instead_of_a_new_segment() -> None:
    a = build()
    first, second = a.malloc(15 * MIB), a.malloc(25 * MIB)
    a.free(first)
    a.free(second)
    a.malloc(55 * MIB)  # the 40 MiB that are free, and 20 more
    assert reserved(a) == 60 * MIB


def test_emptying_the_cache_unmaps_the_pages_that_nobody_uses() -> None:
    a = build()
    first, second = a.malloc(30 * MIB), a.malloc(30 * MIB)
    a.free(first)
    a.empty_cache()  # of 0 to 30 MiB only the page of 0 to 20 is free
    assert reserved(a) == 40 * MIB
    a.malloc(5 * MIB)  # from the 10 MiB that stayed
    assert reserved(a) == 40 * MIB
    a.malloc(21 * MIB)  # 0 to 20 is too little, behind 60 is room
    assert reserved(a) == 80 * MIB
    a.free(second)


def test_a_hole_is_filled_before_the_segment_grows() -> None:
    a = build()
    first, _ = a.malloc(40 * MIB), a.malloc(20 * MIB)
    a.free(first)
    a.empty_cache()
    assert reserved(a) == 20 * MIB
    assert a.malloc(40 * MIB).address == first.address


def test_all_goes_back_when_all_is_free() -> None:
    a = build()
    for block in [a.malloc(size) for size in (1, 3 * MIB, 70 * MIB)]:
        a.free(block)
    a.empty_cache()
    assert (reserved(a), list(a.walk())) == (0, [])


def test_pages_go_back_before_memory_runs_out() -> None:
    a = build(capacity_bytes=100 * MIB)
    a.free(a.malloc(60 * MIB))
    for _ in range(20):
        a.malloc(MIB)
    assert reserved(a) == 80 * MIB
    for _ in range(22):
        a.malloc(MIB)
    assert reserved(a) == 42 * MIB
    with pytest.raises(OutOfMemory):
        a.malloc(60 * MIB)


def test_equal_states_know_what_is_mapped() -> None:
    a, b = build(), build()
    for allocator in (a, b):
        allocator.free(allocator.malloc(40 * MIB))
        allocator.malloc(20 * MIB)
    assert a.state() == b.state()
    b.empty_cache()
    assert a.state() != b.state()
