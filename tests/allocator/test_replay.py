"""Phases of a stream, its peak, and where memory runs out."""

from __future__ import annotations

import pytest

from memplan.allocator import (
    EMPTY_CACHE,
    Allocator,
    AllocatorConfig,
    build_allocator,
    replay,
    run_events,
)
from memplan.units import MIB

# blocks 0 and 1, 1 freed; blocks 3 and 4, both freed
EVENTS = [3 * MIB, 30 * MIB, ~1, 12 * MIB, 16 * MIB, ~4, ~3]
MARKS = [(3, "forward"), (7, "backward")]
KINDS = [AllocatorConfig(), AllocatorConfig(roundup_power2_divisions=(0,) * 16)]


@pytest.mark.parametrize("config", KINDS, ids=["loop", "calls"])
def test_each_phase_has_its_own_peak_which_starts_from_what_stands(
    config: AllocatorConfig,
) -> None:
    forward, backward = replay(build_allocator(config), EVENTS, MARKS).phases
    assert (forward.key, forward.start, forward.stop) == ("forward", 0, 3)
    assert forward.peak_allocated_bytes == forward.peak_requested_bytes == 33 * MIB
    assert (forward.peak_reserved_bytes, forward.reserved_bytes) == (50 * MIB, 50 * MIB)
    assert (forward.allocated_bytes, forward.requested_bytes) == (3 * MIB, 3 * MIB)
    assert backward.peak_allocated_bytes == 31 * MIB
    assert backward.allocated_bytes == 3 * MIB
    assert backward.peak_reserved_bytes == 50 * MIB  # 12 and 16 MiB fit into what is cached


@pytest.mark.parametrize("config", KINDS, ids=["loop", "calls"])
def test_the_peak_event_is_the_first_that_reached_the_peak(config: AllocatorConfig) -> None:
    forward, backward = replay(build_allocator(config), EVENTS, MARKS).phases
    assert (forward.peak_event, backward.peak_event) == (1, 4)


def test_a_phase_that_only_frees_peaks_before_it_starts() -> None:
    phase = replay(Allocator(), [3 * MIB, ~0], [(1, "a"), (2, "b")]).phases[1]
    assert (phase.peak_event, phase.peak_allocated_bytes) == (0, 3 * MIB)


def test_peaks_of_a_replay_are_those_of_its_phases() -> None:
    whole = replay(Allocator(), EVENTS, MARKS)
    assert whole.fits
    assert whole.peak_phase.key == "forward"
    assert whole.peak_allocated_bytes == whole.peak_requested_bytes == 33 * MIB
    assert whole.peak_reserved_bytes == 50 * MIB


def test_a_stream_can_be_replayed_in_parts() -> None:
    at_once, in_parts = Allocator(), Allocator()
    whole = replay(at_once, EVENTS, MARKS)
    first = replay(in_parts, EVENTS, MARKS[:1])
    second = replay(in_parts, EVENTS, MARKS[1:], start=3)
    assert first.phases + second.phases == whole.phases
    assert in_parts.state() == at_once.state()


def test_blocks_of_no_bytes_never_reach_the_allocator() -> None:
    allocator = Allocator()
    run_events(allocator, [0, ~0, 0, 1, ~2], 0, 5)
    assert (allocator.requested, allocator.allocated) == (1, 1)


def test_the_cache_is_emptied_at_its_mark_and_no_phase_ends_there() -> None:
    events = [12 * MIB, ~0, MIB]
    (phase,) = replay(Allocator(), events, [(2, EMPTY_CACHE), (3, "load")]).phases
    assert (phase.start, phase.stop) == (0, 3)
    assert (phase.peak_reserved_bytes, phase.reserved_bytes) == (12 * MIB, 2 * MIB)


@pytest.mark.parametrize("config", KINDS, ids=["loop", "calls"])
def test_a_replay_ends_where_memory_runs_out(config: AllocatorConfig) -> None:
    allocator = build_allocator(config, capacity_bytes=40 * MIB)
    events = [3 * MIB, 18 * MIB, 18 * MIB, ~1]
    result = replay(allocator, events, [(1, "forward"), (4, "backward"), (4, "step")])
    assert not result.fits
    assert result.out_of_memory_event == 2
    assert result.out_of_memory is not None
    assert result.out_of_memory.tried_bytes == 18 * MIB
    _, backward = result.phases
    assert (backward.key, backward.start, backward.stop) == ("backward", 1, 2)
    assert (backward.peak_allocated_bytes, backward.allocated_bytes) == (21 * MIB, 21 * MIB)


def test_steps_that_repeat_leave_the_allocator_as_it_was() -> None:
    events: list[int] = [5 * MIB]
    marks = []
    for _ in range(3):
        start = len(events)
        events += [2 * MIB, 7 * MIB, ~start, 9 * MIB, ~(start + 1), ~(start + 3)]
        marks.append(len(events))
    allocator = Allocator()
    states = []
    start = 0
    for mark in marks:
        replay(allocator, events, [(mark, "step")], start=start)
        states.append(allocator.state())
        start = mark
    assert states[1] == states[2]
