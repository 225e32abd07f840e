"""A run's events through the allocator, step by step, until steps repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Phase, Replay, replay
from memplan.engine.tape import EMPTY_CACHE, OUTSIDE, PhaseMark
from memplan.running import Recording


@dataclass(frozen=True, slots=True)
class Simulation:
    """What torch's counters say of a run.

    Attributes:
        before: Phases before the first step.
        steps: Phases of each step, as far as steps differ.
        replays: What the allocator said, in pieces.
    """

    before: tuple[Phase, ...]
    steps: tuple[tuple[Phase, ...], ...]
    replays: tuple[Replay, ...]

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
    """Replay the run; steps after the first that leaves the allocator as another did are not."""
    stream, wanted = recording.stream, recording.steps.wanted
    replays = [replay(allocator, stream.events, _before(stream.phases))]
    start = replays[0].phases[-1].stop
    events, states = list(stream.events), {allocator.state()}
    for step in range(wanted):
        if not replays[-1].fits:
            break
        marks = _marks(recording, step)
        if step >= recording.steps.ran:
            del events[start:]
            events += recording.steps.events(step)
        replays.append(replay(allocator, events, [(m.end, m) for m in marks], start=start))
        start = marks[-1].end
        state = allocator.state()
        if state in states and step + 1 >= recording.steps.ran:
            break
        states.add(state)
    before, *steps = [r.phases for r in replays]
    return Simulation(before, tuple(steps), tuple(replays))


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
