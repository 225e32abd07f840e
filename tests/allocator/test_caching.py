"""Every rule of the caching allocator, with numbers that a reader can redo."""

from __future__ import annotations

import pytest

from memplan.allocator import Allocator, OutOfMemory, build_allocator, parse_allocator_config
from memplan.allocator.blocks import Block
from memplan.allocator.rounding import GRANULE
from memplan.units import GIB, MIB


def build(conf: str = "", capacity_bytes: int | None = None, context_bytes: int = 0) -> Allocator:
    config = parse_allocator_config(conf)
    return build_allocator(config, capacity_bytes=capacity_bytes, context_bytes=context_bytes)


def allocated(allocator: Allocator) -> int:
    return allocator.allocated * GRANULE


def reserved(allocator: Allocator) -> int:
    return allocator.reserved * GRANULE


def place(block: Block) -> int:
    return block.address * GRANULE


def test_a_small_block_opens_a_segment_of_2_mib_and_the_next_one_shares_it() -> None:
    a = build()
    first, second = a.malloc(1), a.malloc(1000)
    assert (allocated(a), a.requested, reserved(a)) == (512 + 1024, 1001, 2 * MIB)
    assert place(second) == place(first) + 512


def test_one_mib_is_small_and_one_byte_more_is_large() -> None:
    a = build()
    a.malloc(MIB)
    a.malloc(MIB)
    assert reserved(a) == 2 * MIB
    a.malloc(MIB + 1)
    assert (allocated(a), reserved(a)) == (3 * MIB + 512, 22 * MIB)


def test_blocks_below_10_mib_share_a_segment_of_20_mib() -> None:
    a = build()
    for _ in range(2):
        a.malloc(9 * MIB)
    assert (allocated(a), reserved(a)) == (18 * MIB, 20 * MIB)
    a.malloc(2 * MIB)
    assert (allocated(a), reserved(a)) == (20 * MIB, 20 * MIB)


def test_a_rest_of_one_mib_stays_with_a_large_block_and_counts_as_allocated() -> None:
    a = build()
    a.malloc(11 * MIB)  # a segment of 12 MiB, of which 1 MiB is left
    assert (allocated(a), reserved(a), a.requested) == (12 * MIB, 12 * MIB, 11 * MIB)


def test_a_rest_of_more_than_one_mib_is_split_off() -> None:
    a = build()
    a.malloc(11 * MIB - 512)
    assert (allocated(a), reserved(a)) == (11 * MIB - 512, 12 * MIB)
    a.malloc(MIB + 512)  # the rest, exactly
    assert (allocated(a), reserved(a)) == (12 * MIB, 12 * MIB)


def test_a_rest_of_512_bytes_is_split_off_in_the_small_pool() -> None:
    a = build()
    blocks = [a.malloc(MIB), a.malloc(MIB - 512)]
    assert allocated(a) == 2 * MIB - 512
    blocks.append(a.malloc(512))
    assert reserved(a) == 2 * MIB
    assert [block.size * GRANULE for block in blocks] == [MIB, MIB - 512, 512]


def test_the_smallest_free_block_that_fits_is_taken() -> None:
    a = build()
    big, _, mid, _ = a.malloc(30 * MIB), a.malloc(12 * MIB), a.malloc(14 * MIB), a.malloc(12 * MIB)
    a.free(big)
    a.free(mid)
    assert a.malloc(13 * MIB) is mid


def test_of_free_blocks_of_one_size_the_lowest_address_is_taken() -> None:
    a = build()
    first, _, third = a.malloc(12 * MIB), a.malloc(12 * MIB), a.malloc(12 * MIB)
    a.free(third)
    a.free(first)
    assert a.malloc(12 * MIB) is first
    assert a.malloc(12 * MIB) is third


def test_neighbours_merge_on_either_side_but_never_across_segments() -> None:
    a = build()
    one, two, three = (a.malloc(5 * MIB) for _ in range(3))  # and 5 MiB are left of 20
    a.free(one)
    a.free(three)  # merges with the rest
    assert [size // MIB for _, size, _ in a.walk()] == [5, 5, 10]
    a.free(two)  # merges with both
    assert [size // MIB for _, size, _ in a.walk()] == [20]
    a.malloc(20 * MIB)
    assert reserved(a) == 20 * MIB
    other = a.malloc(12 * MIB)
    a.free(other)
    assert len(list(a.walk())) == 2


def test_small_requests_never_take_from_the_large_pool() -> None:
    a = build()
    a.free(a.malloc(20 * MIB))
    a.malloc(MIB)
    assert reserved(a) == 22 * MIB


def test_a_block_cannot_be_freed_twice() -> None:
    a = build()
    block = a.malloc(1)
    a.free(block)
    with pytest.raises(ValueError, match="free already"):
        a.free(block)


def test_emptying_the_cache_gives_back_whole_segments_only() -> None:
    a = build()
    kept = a.malloc(5 * MIB)  # 15 MiB of its segment are free, but not the whole
    a.free(a.malloc(16 * MIB))
    a.free(a.malloc(1))
    assert reserved(a) == 38 * MIB
    a.empty_cache()
    assert reserved(a) == 20 * MIB
    a.free(kept)
    a.empty_cache()
    assert (reserved(a), allocated(a), list(a.walk())) == (0, 0, [])


def test_peaks_start_anew_from_what_stands() -> None:
    a = build()
    kept = a.malloc(3 * MIB)
    a.free(a.malloc(30 * MIB))
    assert a.peak_allocated * GRANULE == 33 * MIB
    a.reset_peaks()
    assert a.peak_allocated * GRANULE == 3 * MIB
    assert a.peak_reserved * GRANULE == 50 * MIB
    assert a.peak_requested == kept.requested == 3 * MIB


def test_cached_segments_go_back_before_memory_runs_out() -> None:
    a = build(capacity_bytes=100 * MIB)
    a.free(a.malloc(60 * MIB))
    a.malloc(80 * MIB)  # 60 + 80 do not fit: the 60 go back
    assert (reserved(a), a.peak_reserved * GRANULE) == (80 * MIB, 80 * MIB)


def test_the_context_takes_its_part_of_the_card() -> None:
    build(capacity_bytes=100 * MIB).malloc(100 * MIB)
    a = build(capacity_bytes=100 * MIB, context_bytes=1)
    a.malloc(98 * MIB)
    with pytest.raises(OutOfMemory):
        a.malloc(1)


def test_what_is_known_when_memory_runs_out() -> None:
    a = build(capacity_bytes=100 * MIB, context_bytes=10 * MIB)
    kept = a.malloc(5 * MIB)
    a.malloc(40 * MIB)
    a.free(a.malloc(12 * MIB))
    with pytest.raises(OutOfMemory) as error:
        a.malloc(31 * MIB + 1)
    e = error.value
    assert (e.requested_bytes, e.tried_bytes) == (31 * MIB + 1, 32 * MIB)
    assert (e.allocated_bytes, e.reserved_bytes) == (45 * MIB, 60 * MIB)  # the 12 MiB went back
    assert (e.free_bytes, e.capacity_bytes, e.exit_code) == (30 * MIB, 100 * MIB, 1)
    a.free(kept)
    a.malloc(31 * MIB + 1)  # the allocator goes on: now 20 MiB more are cached and can go


def test_a_fraction_of_the_card_is_a_limit_of_its_own() -> None:
    a = build("per_process_memory_fraction:0.5", capacity_bytes=100 * MIB)
    a.malloc(50 * MIB)
    with pytest.raises(OutOfMemory) as error:
        a.malloc(1)
    assert error.value.free_bytes == 50 * MIB


def test_a_block_of_the_limit_is_never_split() -> None:
    a = build("max_split_size_mb:30")
    a.free(a.malloc(31 * MIB))
    assert reserved(a) == 32 * MIB  # 32 MiB, of which 1 MiB is not worth a block anyhow
    a.malloc(29 * MIB)  # below the limit: the block of 32 MiB is not for it
    assert reserved(a) == 32 * MIB + 30 * MIB
    a.malloc(30 * MIB)  # at the limit, and 2 MiB too large is near enough: whole
    assert allocated(a) == 30 * MIB + 32 * MIB


def test_a_block_of_the_limit_is_taken_only_if_it_is_less_than_20_mib_too_large() -> None:
    a = build("max_split_size_mb:30")
    a.free(a.malloc(50 * MIB))
    a.malloc(30 * MIB)
    assert reserved(a) == 80 * MIB
    a.malloc(30 * MIB + 1)
    assert (allocated(a), reserved(a)) == (80 * MIB, 80 * MIB)


def test_with_a_limit_only_as_many_large_segments_go_back_as_are_needed() -> None:
    a = build("max_split_size_mb:20", capacity_bytes=100 * MIB)
    blocks = [a.malloc(size * MIB) for size in (20, 22, 50)]
    for block in blocks:
        a.free(block)
    a.malloc(25 * MIB + 512)  # 26 MiB; the 50 are 24.9 MiB too large, so only they go
    assert sorted(size // MIB for _, size, free in a.walk() if free) == [20, 22]


def test_old_segments_are_collected_above_the_threshold() -> None:
    a = build(
        "garbage_collection_threshold:0.5,per_process_memory_fraction:0.9", capacity_bytes=GIB
    )
    old, young, used = a.malloc(300 * MIB), a.malloc(200 * MIB), a.malloc(2 * MIB)
    a.free(old)
    a.free(used)
    for _ in range(4):  # each search makes what is cached a search older, but for what it takes
        a.free(a.malloc(2 * MIB))
    a.free(young)
    a.malloc(400 * MIB)  # 500 + 20 MiB are above 0.5 x 0.9 GiB: what is older than the mean goes
    left = sorted(size // MIB for _, size, free in a.walk() if free)
    assert left == [20, 200]


def test_equal_states_go_on_alike_and_unequal_ones_differ() -> None:
    def used(order: tuple[int, int]) -> Allocator:
        a = build()
        blocks = [a.malloc(12 * MIB) for _ in range(3)]
        for i in order:
            a.free(blocks[i])
        return a

    assert used((0, 1)).state() == used((1, 0)).state() != used((0, 2)).state()
