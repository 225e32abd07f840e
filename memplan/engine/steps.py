"""Identical steps: once a step hands on what it was handed, every further one is a copy of it.

A step frees blocks of the step before it (its loss, its batch) and leaves blocks for the step after
it. When what it leaves equals what it was left, in order and size, the next step does the same to
its own blocks. So do the micro batches of one step whose gradients accumulate. What follows the
last step, an evaluation, does to its blocks what it would do to another last step's.
"""

from __future__ import annotations

from memplan.engine.repeat import NotAlike, Stream
from memplan.engine.tape import PhaseMark

LAST_PHASE = "zero_grad"
LAST_MICRO_PHASE = "backward"


def heirs(events: list[int], start: int, end: int) -> dict[int, int]:
    """{block that a stretch frees for the one before it: block that it leaves in its place}.

    Raises:
        NotAlike: It does not leave what it was left.
    """
    freed = {~e for e in events[start:end] if e < 0}
    inherited = sorted(n for n in freed if n < start)
    left = [n for n in range(start, end) if events[n] >= 0 and n not in freed]
    if [events[n] for n in inherited] != [events[n] for n in left]:
        raise NotAlike("a step leaves other blocks than it was left")
    return dict(zip(inherited, left, strict=True))


class Steps:
    """The steps of a stream, and the ones after its last.

    Raises:
        NotAlike: More steps are wanted than were run, and the last one does not repeat.
    """

    def __init__(self, stream: Stream, wanted: int) -> None:
        self.stream = stream
        self.ends = [p.end for p in stream.phases if p.name == LAST_PHASE]
        self.ran = len(self.ends)
        self.wanted = wanted
        if wanted > self.ran:
            self.start, self.end = self.ends[-2], self.ends[-1]
            self.length = self.end - self.start
            self.template = self.next_step()
            self.phases = [p for p in stream.phases if p.step == self.ran - 1]

    @property
    def after(self) -> list[PhaseMark]:
        """The phases after the last step, as they stand in the stream."""
        phases = self.stream.phases
        last = max(at for at, p in enumerate(phases) if p.name == LAST_PHASE)
        return phases[last + 1 :]

    def shift(self, step: int) -> int:
        """How much later the blocks of a step are numbered than those of the last that was run."""
        return (step - self.ran + 1) * self.length if step >= self.ran else 0

    def after_events(self, last: int) -> list[int]:
        """The events after the last step, when it is that one."""
        begin, shift = self.ends[-1], self.shift(last)
        end = max([p.end for p in self.after], default=begin)
        old = self.start if shift else begin
        return [e if e >= 0 or ~e < old else e - shift for e in self.stream.events[begin:end]]

    def next_step(self) -> list[int]:
        """The events of the first step that was not run."""
        events, start, length = self.stream.events, self.start, self.length
        heir = heirs(events, start, self.end)
        return [
            e if e >= 0 else e - length if ~e >= start else ~heir[~e]
            for e in events[start : self.end]
        ]

    def events(self, step: int) -> list[int]:
        """The events of a step that was not run; blocks are numbered on from the stream's."""
        shift = (step - self.ran) * self.length
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


def accumulate(stream: Stream, ran: int, wanted: int) -> Stream:
    """The stream of steps of ``wanted`` micro batches, from one of steps of ``ran``.

    Raises:
        NotAlike: The last micro batch of a step does not repeat.
    """
    if wanted == ran:
        return stream
    return Accumulation(stream, wanted - ran).write()


class Accumulation:
    """The last micro batch of each step, written again."""

    def __init__(self, stream: Stream, copies: int) -> None:
        self.old, self.copies = stream, copies
        self.new = Stream()
        self.places: list[int] = []  # of each old event, in the new stream
        self.piece = self.marks = 0  # how many of the old ones have been written

    def write(self) -> Stream:
        """The longer stream."""
        by_step: dict[int, list[int]] = {}
        for at, p in enumerate(self.old.phases):
            if p.name == LAST_MICRO_PHASE:
                by_step.setdefault(p.step, []).append(at)
        for micro in by_step.values():
            start, end = (self.old.phases[at].end for at in micro[-2:])
            self.keep(micro[-2])
            first, heir = len(self.new.events), heirs(self.old.events, start, end)
            marks = len(self.new.phases)
            self.keep(micro[-1])
            self.repeat(start, end, first, marks, heir)
        self.keep(len(self.old.phases) - 1)
        return self.new

    def keep(self, last: int) -> None:
        """Write the old events as they are, up to the end of the phase with this index."""
        shift = len(self.new.events) - len(self.places)
        old, new = self.old, self.new
        end = old.phases[last].end
        for p in old.phases[self.marks : last + 1]:
            new.phases.append(p._replace(end=p.end + shift))
        self.marks = last + 1
        begin = len(self.places)
        while self.piece < len(old.pieces) and old.pieces[self.piece][0] < end:
            start, events, layer = old.pieces[self.piece]
            first, stop = max(start, begin), min(start + len(events), end)
            new.pieces.append((first + shift, events[first - start : stop - start], layer))
            if start + len(events) > end:
                break  # the rest of it belongs to what is written next
            self.piece += 1
        for e in old.events[len(self.places) : end]:
            self.places.append(len(new.events))
            new.events.append(e if e >= 0 else ~self.places[~e])

    def repeat(
        self, start: int, end: int, first: int, first_mark: int, heir: dict[int, int]
    ) -> None:
        """Write the stretch again: each copy frees what the one before it left."""
        old, new, length = self.old, self.new, end - start
        template = [  # the first copy
            e if e >= 0 else ~(self.places[heir[~e]] if ~e < start else self.places[~e] + length)
            for e in old.events[start:end]
        ]
        pieces = [p for p in new.pieces if p[0] >= first]
        marks = new.phases[first_mark:]
        for copy in range(1, self.copies + 1):
            shift = copy * length
            back = shift - length
            new.events += [e if e >= 0 else e - back for e in template]
            new.pieces += [(at + shift, events, layer) for at, events, layer in pieces]
            new.phases += [p._replace(end=p.end + shift) for p in marks]
        for n in heir.values():  # whoever frees these later means the last copy's
            self.places[n] += self.copies * length
