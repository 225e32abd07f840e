"""Identical steps: once a step hands on what it was handed, every further one is a copy of it."""

from __future__ import annotations

from memplan.engine.repeat import NotAlike, Stream
from memplan.engine.tape import PhaseMark

LAST_PHASE = "zero_grad"


class Steps:
    """The steps of a stream, and the ones after its last.

    A step frees blocks of the step before it (its loss, its batch) and leaves blocks for the step
    after it. When what it leaves equals what it was left, in order and size, the next step does the
    same to its own blocks.

    Raises:
        NotAlike: More steps are wanted than were run, and the last one is not such a step.
    """

    def __init__(self, stream: Stream, wanted: int) -> None:
        self.stream = stream
        self.ends = [p.end for p in stream.phases if p.name == LAST_PHASE]
        self.ran = len(self.ends)
        self.wanted = wanted
        if wanted > self.ran:
            self.start, self.end = self.ends[-2], self.ends[-1]
            self.length = self.end - self.start
            self.template = self.named_by_step()
            self.phases = [p for p in stream.phases if p.step == self.ran - 1]

    def named_by_step(self) -> list[int]:
        """The last step's events, with blocks of the step before it at the place of its own."""
        events, start, end = self.stream.events, self.start, self.end
        freed = {~e for e in events[start:end] if e < 0}
        inherited = sorted(n for n in freed if n < start)
        left = [n for n in range(start, end) if events[n] >= 0 and n not in freed]
        if [events[n] for n in inherited] != [events[n] for n in left]:
            raise NotAlike("a step leaves other blocks than it was left")
        previous = {old: new - self.length for old, new in zip(inherited, left, strict=True)}
        return [e if e >= 0 or ~e >= start else ~previous[~e] for e in events[start:end]]

    def events(self, step: int) -> list[int]:
        """The events of a step that was not run; blocks are numbered on from the stream's."""
        shift = (step - self.ran + 1) * self.length
        return [e if e >= 0 else e - shift for e in self.template]

    def marks(self, step: int) -> list[PhaseMark]:
        """The phases of a step that was not run."""
        shift = (step - self.ran + 1) * self.length
        return [PhaseMark(p.end + shift, p.name, step) for p in self.phases]

    def origin(self, event: int) -> int:
        """The event of the stream that does in its step what this one does in its own."""
        if event < self.ends[-1]:
            return event
        return self.start + (event - self.start) % self.length
