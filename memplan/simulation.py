"""A run's events through the allocator, step by step, until steps repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
        after: Phases after the last step; their events are numbered as in the recorded stream.
    """

    before: tuple[Phase, ...]
    steps: tuple[tuple[Phase, ...], ...]
    replays: tuple[Replay, ...]
    last: int
    after: tuple[Phase, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every allocation found room."""
        return all(r.fits for r in self.replays)

    @property
    def training(self) -> list[Phase]:
        """The phases that peaks are taken over."""
        return [*(phase for step in self.steps for phase in step), *self.after]

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
    first = replay(allocator, recording.stream.events, _before(recording.stream.phases))
    if not first.fits:
        return Simulation(first.phases, (), (first,), 0)
    steps = StepByStep(recording, allocator, first.phases[-1].stop)
    last = steps.run()
    after: tuple[Phase, ...] = ()
    if recording.steps.after and steps.fits:
        after = steps.run_after()
    return Simulation(first.phases, tuple(steps.phases), (first, *steps.replays), last, after)


class StepByStep:
    """The steps of a run, one after the other, and what follows the last.

    Attributes:
        events: Those of the stream up to ``start``, then those of the step that is replayed.
        start: Number of the first event that has not been replayed.
        step: The step that was replayed last.
        phases: The phases of each step.
        replays: What the allocator said.
    """

    def __init__(self, recording: Recording, allocator: Allocator, start: int) -> None:
        self.recording, self.steps, self.allocator = recording, recording.steps, allocator
        self.events, self.start, self.step = list(recording.stream.events), start, -1
        self.phases: list[tuple[Phase, ...]] = []
        self.replays: list[Replay] = []

    @property
    def fits(self) -> bool:
        """Whether every allocation has found room."""
        return self.replays[-1].fits

    def run(self) -> int:
        """Replay steps until one is like an earlier one; which one the last is like."""
        seen: dict[object, int] = {}
        wanted = self.steps.wanted
        while self.step < wanted - 1:
            state = self.next_step()
            if not self.fits:
                break
            if state in seen and self.may_stop:
                first, again = seen[state], self.step
                self.go_round((wanted - 1 - again) % (again - first))
                return same_in_cycle(wanted - 1, first, again)
            seen[state] = self.step
        return self.step

    @property
    def may_stop(self) -> bool:
        """Whether no step is left that was run: it may do what those before it did not."""
        return self.step >= self.steps.ran - 1

    def go_round(self, steps: int) -> None:
        """Go on to the step that leaves the allocator as the last one does, if that matters."""
        for _ in range(steps if self.steps.after else 0):
            self.next_step()

    def next_step(self) -> object:
        """Replay one step; the state in which it leaves the allocator."""
        self.step += 1
        marks = _marks(self.recording, self.step)
        if self.step >= self.steps.ran:
            del self.events[self.start :]
            self.events += self.steps.events(self.step)
        pieces = list(replay_step(self.allocator, self.events, marks, self.start))
        self.replays += pieces
        self.phases.append(tuple(phase for r in pieces for phase in r.phases))
        begin, self.start = self.start, marks[-1].end
        return self.allocator.state(), addresses(self.allocator, begin, self.start)

    def run_after(self) -> tuple[Phase, ...]:
        """Replay what follows the last step; its peaks are at events of the recorded stream."""
        shift, last = self.steps.shift(self.step), self.steps.wanted - 1
        del self.events[self.start :]
        self.events += self.steps.after_events(self.step)
        marks = [
            (p.end + shift, p.name if p.name == EMPTY_CACHE else p._replace(step=last))
            for p in self.steps.after
        ]
        self.replays.append(replay(self.allocator, self.events, marks, start=self.start))
        phases = self.replays[-1].phases
        return tuple(replace(p, peak_event=p.peak_event - shift) for p in phases)


def replay_step(
    allocator: Allocator, events: list[int], marks: list[PhaseMark], start: int
) -> Iterator[Replay]:
    """Replay a step micro batch by micro batch, then its update.

    Where a micro batch leaves the allocator as an earlier one did, as many rounds of those between
    the two as there are left are passed over: they would do the same again. It may still hold what
    the one before it left, as the Trainer does the loss; the first one's batches are the step's.
    """
    groups = micro_batches(marks)
    seen: dict[object, int] = {}
    at, before = 0, start
    while at < len(groups):
        replayed = replay(allocator, events, [(m.end, m) for m in groups[at]], start=start)
        yield replayed
        if not replayed.fits:
            return
        end, passed = groups[at][-1].end, 0
        if at < len(groups) - 2:
            since = before if at > 1 else start
            state = allocator.state(), addresses(allocator, since, end)
            if state in seen:
                passed = whole_rounds(len(groups) - 2 - at, at - seen[state])
                hand_over(allocator, since, end, passed * (end - start))
            seen[state] = at
        shift = passed * (end - start)
        before, start = start + shift, end + shift
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
        for number in reversed(range(start, end)):
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
