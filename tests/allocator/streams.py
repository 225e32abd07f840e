"""Recorded streams replayed: the simulation beside torch's counters, event by event."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from memplan.allocator import (
    Allocator,
    OutOfMemory,
    build_allocator,
    parse_allocator_config,
    run_events,
)
from memplan.allocator.blocks import Block
from memplan.allocator.rounding import GRANULE

Json = dict[str, Any]
Counters = tuple[int, int]
Way = Callable[[Allocator, list[int]], Callable[[int], None]]

STREAMS = Path(__file__).parents[1] / "evidence" / "streams"


def read_record(path: Path) -> Json:
    record: Json = json.loads(gzip.decompress(path.read_bytes()))
    return record


def allocator_of(record: Json) -> Allocator:
    """The simulation of the card and the options that a stream was recorded with."""
    return build_allocator(
        parse_allocator_config(record["conf"]),
        capacity_bytes=record["capacity_bytes"],
        context_bytes=record["context_bytes"],
    )


def recorded_counters(record: Json) -> list[Counters]:
    """Allocated and reserved bytes after each event, as torch counted them."""
    return list(zip(accumulate(record["allocated"]), accumulate(record["reserved"]), strict=True))


def calls(allocator: Allocator, events: list[int]) -> Callable[[int], None]:
    """Takes event after event by ``malloc`` and ``free``."""
    blocks: dict[int, Block] = {}

    def take(number: int) -> None:
        event = events[number]
        if event > 0:
            blocks[number] = allocator.malloc(event)
        elif event < 0 and ~event in blocks:
            allocator.free(blocks.pop(~event))

    return take


def loop(allocator: Allocator, events: list[int]) -> Callable[[int], None]:
    """Takes event after event by the loop that replays streams."""

    def take(number: int) -> None:
        allocator.handles.extend([None] * (number - len(allocator.handles)))
        run_events(allocator, events, number, number + 1)

    return take


WAYS = (calls, loop)


def simulated(record: Json, way: Way) -> Iterator[tuple[Counters, OutOfMemory | None]]:
    """Allocated and reserved bytes after each event, and the error if there was no room."""
    allocator = allocator_of(record)
    flushes = set(record["flushes"])
    take = way(allocator, record["events"])
    for number in range(len(record["events"])):
        if number in flushes:
            allocator.empty_cache()
        error = None
        try:
            take(number)
        except OutOfMemory as no_room:
            error = no_room
        yield (allocator.allocated * GRANULE, allocator.reserved * GRANULE), error


def first_difference(record: Json) -> str | None:
    """Where the simulation and torch part first, or ``None``."""
    failures = {failure["event"] for failure in record["failures"]}
    for way in WAYS:
        pairs = zip(simulated(record, way), recorded_counters(record), strict=True)
        for number, ((ours, error), torchs) in enumerate(pairs):
            if ours != torchs or (error is not None) != (number in failures):
                event = record["events"][number]
                return f"{way.__name__}: event {number} ({event}): {ours}, torch {torchs}, {error}"
    return None
