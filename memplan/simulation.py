"""A run's events through the allocator, step by step, until steps repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Phase, Replay, replay
from memplan.engine.steps import LAST_MICRO_PHASE
from memplan.engine.tape import EMPTY_CACHE, OUTSIDE, PhaseMark
from memplan.running import Recording


@dataclass(frozen=True, slots=True)
class Simulation:
    """What torch's counters say of a run.

    Attributes:
        before: Phases before the first step.
        steps: Phases of each step, as far as steps differ.
        replays: What the allocator said, in pieces.
        last: Which of ``steps`` the last step of the run is like.
    """

    before: tuple[Phase, ...]
    steps: tuple[tuple[Phase, ...], ...]
    replays: tuple[Replay, ...]
    last: int

    @property
    def fits(self) -> bool:
        """Whether every allocation found room."""
        return all(r.fits for r in self.replays)

    @property
    def training(self) -> list[Phase]:
        """The phases that peaks are taken over."""
        return [phase for step in self.steps for phase in step]

    @property
    def peak_reserved_bytes(self) -> int:
        """The most that was reserved, loading included. [bytes]"""
        return max(p.peak_reserved_bytes for p in (*self.before, *self.training))

    @property
    def peak_phase(self) -> Phase:
        """The phase of training that first reached the allocated peak."""
        return max(self.training, key=lambda phase: phase.peak_allocated_bytes)


def simulate(recording: Recording, allocator: Allocator) -> Simulation:
    """Replay the run, up to the first step that leaves the allocator as an earlier one did.

    From there on steps do what those between the two did: their peaks have been seen.
    """
    stream, wanted = recording.stream, recording.steps.wanted
    replays = [replay(allocator, stream.events, _before(stream.phases))]
    if not replays[0].fits:
        return Simulation(replays[0].phases, (), tuple(replays), 0)
    start = replays[0].phases[-1].stop
    events, last = list(stream.events), wanted - 1
    steps: list[tuple[Phase, ...]] = []
    seen: dict[object, int] = {}
    for step in range(wanted):
        marks = _marks(recording, step)
        if step >= recording.steps.ran:
            del events[start:]
            events += recording.steps.events(step)
        pieces = list(replay_step(allocator, events, marks, start))
        replays += pieces
        steps.append(tuple(phase for r in pieces for phase in r.phases))
        if not replays[-1].fits:
            break
        state = allocator.state(), addresses(allocator, start, marks[-1].end)
        start = marks[-1].end
        if state in seen:
            last = same_in_cycle(wanted - 1, seen[state], step)
            break
        seen[state] = step
    before = replays[0].phases
    return Simulation(before, tuple(steps), tuple(replays), min(last, len(steps) - 1))


def replay_step(
    allocator: Allocator, events: list[int], marks: list[PhaseMark], start: int
) -> Iterator[Replay]:
    """Replay a step micro batch by micro batch, then its update.

    Where a micro batch leaves the allocator as an earlier one did, as many rounds of those between
    the two as there are left are passed over: they would do the same again.
    """
    groups = micro_batches(marks)
    seen: dict[object, int] = {}
    at = 0
    while at < len(groups):
        replayed = replay(allocator, events, [(m.end, m) for m in groups[at]], start=start)
        yield replayed
        if not replayed.fits:
            return
        end, passed = groups[at][-1].end, 0
        if at < len(groups) - 2:
            state = allocator.state(), addresses(allocator, start, end)
            if state in seen:
                passed = whole_rounds(len(groups) - 2 - at, at - seen[state])
                hand_over(allocator, start, end, passed * (end - start))
            seen[state] = at
        start = end + passed * (end - start)
        at += 1 + passed


def micro_batches(marks: list[PhaseMark]) -> list[list[PhaseMark]]:
    """The phases of each micro batch, then those of the update."""
    groups: list[list[PhaseMark]] = [[]]
    for m in marks:
        groups[-1].append(m)
        if m.name == LAST_MICRO_PHASE:
            groups.append([])
    return groups


def whole_rounds(left: int, period: int) -> int:
    """How many of the micro batches that are left make whole rounds of so many."""
    return left // period * period


def hand_over(allocator: Allocator, start: int, end: int, shift: int) -> None:
    """Blocks that events from ``start`` to ``end`` left, as if later events had left them."""
    handles = allocator.handles
    handles.extend([None] * shift)
    if shift:
        for number in range(start, end):
            handles[number + shift], handles[number] = handles[number], None


def same_in_cycle(step: int, first: int, again: int) -> int:
    """The step up to ``again`` that a later one is like, if ``again`` ended as ``first`` did.

    Example:
        >>> [same_in_cycle(step, 1, 3) for step in (3, 4, 5, 6)]
        [3, 2, 3, 2]
    """
    return first + 1 + (step - first - 1) % (again - first)


def addresses(allocator: Allocator, start: int, end: int) -> tuple[int, ...]:
    """Where the blocks lie that a step leaves for the next. [granules]"""
    return tuple(b.address for b in allocator.handles[start:end] if b is not None)


def _before(phases: list[PhaseMark]) -> Iterator[tuple[int, object]]:
    """The marks before the first step."""
    for p in phases:
        if p.step != OUTSIDE:
            return
        yield p.end, p.name if p.name == EMPTY_CACHE else p


def _marks(recording: Recording, step: int) -> list[PhaseMark]:
    """The phases of a step: of several micro batches, each one's."""
    if step < recording.steps.ran:
        return [p for p in recording.stream.phases if p.step == step]
    return recording.steps.marks(step)
