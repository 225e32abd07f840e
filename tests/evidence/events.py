"""Streams of allocator events beside each other: where does the first one part from the second?

Blocks are named by the part of the run in which they were made and by their number in it, so that
a block too many while loading does not rename every block of the training. Frees that no allocation
separates may come in any order: the allocator ends in the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

PARTS = ("load", "adapter", "training")


@dataclass(frozen=True, slots=True)
class Event:
    """An allocation, or the free of the block of that name."""

    part: str
    block: tuple[str, int]
    nbytes: int
    is_free: bool
    phase: str
    origin: str

    @property
    def key(self) -> tuple[bool, tuple[str, int], int]:
        """What must be equal."""
        return self.is_free, self.block, self.nbytes

    def __str__(self) -> str:
        """One line: what happens to which block."""
        part, number = self.block
        verb = "free" if self.is_free else "alloc"
        return f"{verb:5} {part}#{number:<7} {self.nbytes:>13,}"


@dataclass(frozen=True, slots=True)
class Raw:
    """An event before its block has a name; ``number`` is unique while the block lives."""

    is_free: bool
    number: int
    nbytes: int
    phase: str
    origin: str = ""


def part_of(phase: str) -> str:
    """The part of the run to which a phase belongs."""
    name = phase.split()[-1]
    if name == "load":
        return PARTS[0]
    return PARTS[1] if name in ("adapter", "optimizer_init") else PARTS[2]


def named(events: Iterable[Raw]) -> Iterator[Event]:
    """Events with blocks named; a free belongs to the part of the allocation before it."""
    made = dict.fromkeys(PARTS, 0)
    live: dict[int, tuple[str, int]] = {}
    part = PARTS[0]
    for e in events:
        if not e.is_free:
            part = part_of(e.phase)
            live[e.number] = (part, made[part])
            made[part] += 1
        block = live.pop(e.number) if e.is_free else live[e.number]
        yield Event(part, block, e.nbytes, e.is_free, e.phase, e.origin)


def settled(events: Iterable[Event]) -> list[Event]:
    """Events with every run of frees in one order."""
    result: list[Event] = []
    for is_free, run in groupby(events, key=lambda e: e.is_free):
        settled_run = list(run)
        result += sorted(settled_run, key=lambda e: e.key) if is_free else settled_run
    return result


def without_teardown(events: list[Event]) -> list[Event]:
    """Events up to the last allocation: what dies after the loop is no part of the run."""
    last = max((i for i, e in enumerate(events) if not e.is_free), default=-1)
    return events[: last + 1]


def first_parting(real: list[Event], ours: list[Event]) -> int | None:
    """Index of the first event that differs, if one does."""
    for i, (a, b) in enumerate(zip(real, ours, strict=False)):
        if a.key != b.key:
            return i
    return None if len(real) == len(ours) else min(len(real), len(ours))


def partings(real: list[Event], ours: list[Event], context: int) -> Iterator[str]:
    """For each part of the run that differs, the events around the first difference."""
    for part in PARTS:
        a = settled(e for e in without_teardown(real) if e.part == part)
        b = settled(e for e in without_teardown(ours) if e.part == part)
        at = first_parting(a, b)
        if at is None:
            yield f"{part}: {len(a)} events, identical"
            continue
        yield f"{part}: parts at event {at} of {len(a)} (memplan: {len(b)})"
        yield from side_by_side(a, b, range(max(0, at - context), at + context))


def side_by_side(real: list[Event], ours: list[Event], rows: range) -> Iterator[str]:
    """Both streams' rows, differences marked, with what the real run knows of each block."""
    for i in rows:
        a = real[i] if i < len(real) else None
        b = ours[i] if i < len(ours) else None
        if a is None and b is None:
            return
        mark = "  " if a and b and a.key == b.key else "!!"
        known = " | ".join(x for x in (a and f"{a.phase} {a.origin}", b and b.origin) if x)
        yield f"{i:7} {mark} {a or '-'!s:40} {b or '-'!s:40} {known}"
