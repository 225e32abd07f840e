"""What holds for any sequence of allocations and frees."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.allocator import (
    Allocator,
    OutOfMemory,
    build_allocator,
    parse_allocator_config,
    run_events,
)
from memplan.allocator.blocks import Block
from memplan.allocator.rounding import GRANULE
from memplan.units import GIB, MIB

CONFS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:24",
    "roundup_power2_divisions:4",
    "garbage_collection_threshold:0.3,per_process_memory_fraction:0.8",
)
EDGES = [512, 1024, MIB, 2 * MIB, 10 * MIB, 12 * MIB, 20 * MIB, 24 * MIB, 40 * MIB]
sizes = st.one_of(
    st.integers(1, 64 * MIB),
    st.builds(lambda edge, d: edge + d, st.sampled_from(EDGES), st.sampled_from([-1, 0, 1, 512])),
)
# An allocation of so many bytes, or the free of the n-th block that lives then.
steps = st.lists(st.one_of(sizes, st.integers(-40, -1)), max_size=80)


def stream(actions: Iterable[int]) -> list[int]:
    """Events as the engine writes them."""
    events: list[int] = []
    live: list[int] = []
    for action in actions:
        if action > 0:
            live.append(len(events))
            events.append(action)
        elif live:
            events.append(~live.pop(action % len(live)))
    return events


def live_blocks(allocator: Allocator, events: list[int]) -> list[Block]:
    """The blocks that live after events that found room, taken by ``malloc`` and ``free``."""
    blocks: dict[int, Block] = {}
    for number, event in enumerate(events):
        if event > 0:
            try:
                blocks[number] = allocator.malloc(event)
            except OutOfMemory:
                continue
        elif ~event in blocks:
            allocator.free(blocks.pop(~event))
        assert allocator.reserved >= allocator.allocated
        assert allocator.allocated * GRANULE >= allocator.requested
        assert allocator.peak_allocated >= allocator.allocated
        assert allocator.peak_reserved >= allocator.reserved
    return list(blocks.values())


@pytest.mark.parametrize("conf", CONFS)
@settings(max_examples=40, deadline=None)
@given(steps)
def test_live_blocks_never_overlap_and_add_up(conf: str, actions: list[int]) -> None:
    allocator = build_allocator(parse_allocator_config(conf), capacity_bytes=GIB // 4)
    blocks = sorted(live_blocks(allocator, stream(actions)), key=lambda block: block.address)
    for block, after in pairwise(blocks):
        assert block.address + block.size <= after.address
    assert sum(block.size for block in blocks) == allocator.allocated
    assert sum(block.requested for block in blocks) == allocator.requested
    pieces = [(address, size) for address, size, _ in allocator.walk()]
    assert {(b.address * GRANULE, b.size * GRANULE) for b in blocks} <= set(pieces)
    if "expandable" not in conf:  # whose segments are mostly unmapped
        assert sum(size for _, size in pieces) == allocator.reserved * GRANULE


@pytest.mark.parametrize("conf", CONFS)
@settings(max_examples=40, deadline=None)
@given(steps)
def test_freeing_everything_and_emptying_the_cache_leaves_nothing(
    conf: str, actions: list[int]
) -> None:
    allocator = build_allocator(parse_allocator_config(conf), capacity_bytes=GIB // 4)
    for block in live_blocks(allocator, stream(actions)):
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.requested, allocator.allocated, allocator.reserved) == (0, 0, 0)
    assert (list(allocator.walk()), allocator.state()[:1]) in (([], ()), ([], (0,)))


@settings(max_examples=40, deadline=None)
@given(steps, st.sampled_from([None, GIB // 8, GIB // 4]))
def test_the_loop_does_what_malloc_and_free_do(actions: list[int], capacity: int | None) -> None:
    events = stream(actions)
    looped = Allocator(capacity_bytes=capacity)
    called = Allocator(capacity_bytes=capacity)
    blocks: dict[int, Block] = {}
    for number, event in enumerate(events):
        errors = []
        try:
            run_events(looped, events, number, number + 1)
        except OutOfMemory as error:
            looped.handles.append(None)
            errors.append(str(error))
        try:
            if event > 0:
                blocks[number] = called.malloc(event)
            elif ~event in blocks:
                called.free(blocks.pop(~event))
        except OutOfMemory as error:
            errors.append(str(error))
        assert len(set(errors)) <= 1
        assert len(errors) in (0, 2)
        assert looped.state() == called.state()
        for name in ("requested", "allocated", "reserved"):
            assert getattr(looped, name) == getattr(called, name)
            assert getattr(looped, f"peak_{name}") == getattr(called, f"peak_{name}")


@settings(max_examples=40, deadline=None)
@given(steps)
def test_a_card_that_holds_the_peak_changes_nothing(actions: list[int]) -> None:
    events = stream(actions)
    unlimited = Allocator()
    run_events(unlimited, events, 0, len(events))
    limited = Allocator(capacity_bytes=unlimited.peak_reserved * GRANULE)
    run_events(limited, events, 0, len(events))
    assert limited.state() == unlimited.state()
