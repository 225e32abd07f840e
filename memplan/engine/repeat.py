"""Identical layers: run a few, write down the events of all.

A decoder layer does what its neighbour does, to its own blocks. So five layers are run; the events
of the fourth, its blocks named by (layer, place in the layer), are written again for every layer
that was left out. That is done only if the third did exactly the same, name for name; if not,
``NotAlike`` is raised and every layer is run. Frees that no allocation separates commute in the
allocator: they are compared, and may be written, in another order than a full run's.

A formula in the number of layers was the alternative; the peak is not one, and the allocator needs
the events.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from memplan.engine.tape import OUTSIDE, PhaseMark, Tape

REPRESENTATIVES = 5
"""The third and the fourth, which are neither first, second nor last, must turn out the same."""
TEMPLATE = 3
"""The representative that is copied."""


class NotAlike(Exception):
    """The representatives do not do the same; every layer has to be run."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many layers a model has and how many of them are run.

    Attributes:
        total: ``num_hidden_layers``.
        run: Layers that the engine builds and runs.
    """

    total: int
    run: int

    @classmethod
    def unrolled(cls, total: int) -> Depth:
        """Every layer is run."""
        return cls(total, total)

    @classmethod
    def representative(cls, total: int) -> Depth:
        """Five layers stand for all."""
        return cls(total, min(total, REPRESENTATIVES))

    @property
    def extra(self) -> int:
        """Copies of the template that are to be added."""
        return self.total - self.run

    def copies(self, layer: int) -> int:
        """How many layers this representative stands for."""
        return 1 + self.extra if layer == TEMPLATE else 1

    def virtual(self, layer: int) -> int:
        """The layer of the full model that a representative is."""
        return layer + self.extra if layer > TEMPLATE else layer


@dataclass(slots=True)
class Segment:
    """Consecutive events of one layer, or of none.

    Attributes:
        layer: The representative, or ``OUTSIDE``.
        run: Segments of one pass over the layers share it.
        events: Indices into the tape.
    """

    layer: int
    run: int
    events: list[int]


@dataclass(slots=True)
class Stream:
    """The events of the full model.

    Attributes:
        events: As ``Tape.events``.
        phases: As ``Tape.phases``.
        pieces: (first event, indices into the tape, layer of the full model), in order.
    """

    events: list[int] = field(default_factory=list)
    phases: list[PhaseMark] = field(default_factory=list)
    pieces: list[tuple[int, list[int], int]] = field(default_factory=list)

    def inner_copies(self) -> Iterator[tuple[int, int]]:
        """(first event, end) of the copies that have one of the same layer on either side."""
        top = max(layer for _, _, layer in self.pieces)
        last = top - (REPRESENTATIVES - 1 - TEMPLATE)
        for start, events, layer in self.pieces:
            if TEMPLATE < layer < last:
                yield start, start + len(events)

    def origin(self, event: int) -> tuple[int, int]:
        """(event of the tape, layer of the full model) that an event was written from."""
        at = bisect_right(self.pieces, event, key=lambda piece: piece[0]) - 1
        start, events, layer = self.pieces[at]
        return events[event - start], layer


def expand(tape: Tape, depth: Depth) -> Stream:
    """The events of all layers from those of the representatives.

    Raises:
        NotAlike: The two middle representatives differ.
    """
    if not depth.extra:
        whole = list(range(len(tape.events)))
        return Stream(tape.events, tape.phases, [(0, whole, OUTSIDE)])
    return Expansion(tape, depth).write()


class Expansion:
    """The tape cut into segments, every block named by them, and the stream as it is written."""

    def __init__(self, tape: Tape, depth: Depth) -> None:
        self.tape, self.depth = tape, depth
        self.layer_of: dict[int, int] = {}
        self.segments = list(number_runs(merged(self.cut())))
        self.names: dict[int, tuple[int, int, int]] = {}
        self.allocs: dict[tuple[int, int], list[int]] = {}
        for s in self.segments:
            self.name(s)
        # Where blocks are written: index of the first copy, and what each further copy adds.
        self.places: dict[int, tuple[int, int]] = {}
        self.stream = Stream()

    def cut(self) -> Iterator[Segment | PhaseMark]:
        """Segments in order, and the phase marks between them."""
        for label, start, end in regions(self.tape):
            if isinstance(label, PhaseMark):
                yield label
            elif label != OUTSIDE:
                for i in range(start, end):
                    self.layer_of[i] = label
                yield Segment(label, 0, list(range(start, end)))
            else:
                yield from self.cut_outside(start, end)

    def cut_outside(self, start: int, end: int) -> Iterator[Segment]:
        """Frees outside of the layers go with the layer of their block, in ascending order."""
        events, layer_of = self.tape.events, self.layer_of
        plain: list[int] = []
        i = start
        while i < end:
            if events[i] >= 0 or ~events[i] not in layer_of:
                plain.append(i)
                i += 1
                continue
            j = i
            while j < end and events[j] < 0:
                j += 1
            groups: dict[int, list[int]] = {}
            for k in range(i, j):
                groups.setdefault(layer_of.get(~events[k], OUTSIDE), []).append(k)
            plain += groups.pop(OUTSIDE, [])
            if plain:
                yield Segment(OUTSIDE, 0, plain)
                plain = []
            for layer in sorted(groups):
                yield Segment(layer, 0, groups[layer])
            i = j
        if plain:
            yield Segment(OUTSIDE, 0, plain)

    def name(self, s: Segment | PhaseMark) -> None:
        """Name a segment's blocks (run, layer, place)."""
        if isinstance(s, PhaseMark) or s.layer == OUTSIDE:
            return
        events = self.tape.events
        allocs = self.allocs.setdefault((s.run, s.layer), [])
        for i in s.events:
            if events[i] >= 0:
                self.names[i] = (s.run, s.layer, len(allocs))
                allocs.append(i)

    def write(self) -> Stream:
        """Write all segments, the template's once for each layer that it stands for."""
        for at, s in enumerate(self.segments):
            if isinstance(s, PhaseMark):
                self.stream.phases.append(s._replace(end=len(self.stream.events)))
            elif s.layer == TEMPLATE:
                self.write_copies(s, self.neighbour(at))
            else:
                self.write_one(s)
        return self.stream

    def neighbour(self, at: int) -> tuple[Segment, bool]:
        """The segment of the representative before the template, and whether layers ascend."""
        for other, ascending in ((at - 1, True), (at + 1, False)):
            if 0 <= other < len(self.segments):
                s = self.segments[other]
                if isinstance(s, Segment) and s.layer == TEMPLATE - 1:
                    return s, ascending
        raise NotAlike("a pass over the layers skips one")

    def write_one(self, s: Segment) -> None:
        """Write a segment that stands for itself."""
        events, out = self.tape.events, self.stream.events
        virtual = self.depth.virtual(s.layer) if s.layer != OUTSIDE else OUTSIDE
        self.stream.pieces.append((len(out), s.events, virtual))
        places, names = self.places, self.names
        for i in s.events:
            e = events[i]
            if e >= 0:
                places[i] = (len(out), 0)
                out.append(e)
            elif ~e not in names:
                out.append(~places[~e][0])
            else:
                out.append(~self.place(~e, s.layer, virtual))

    def place(self, block: int, layer: int, virtual: int) -> int:
        """Where the block that a segment means by ``block`` was written.

        Args:
            block: The tape's number.
            layer: The representative whose segment asks.
            virtual: The layer of the full model that it is written for.
        """
        run, of, index = self.names[block]
        if layer == of and of != TEMPLATE:
            return self.places[block][0]
        if layer == OUTSIDE:
            if of == TEMPLATE:
                raise NotAlike("a block of a middle layer is wanted outside of the layers")
            return self.places[block][0]
        wanted = virtual + of - layer
        extra = self.depth.extra
        if wanted < TEMPLATE or wanted > TEMPLATE + extra:
            rep = wanted if wanted < TEMPLATE else wanted - extra
            return self.places[self.counterpart(run, rep, index)][0]
        first, slope = self.places[self.counterpart(run, TEMPLATE, index)]
        return first + slope * (wanted - TEMPLATE)

    def counterpart(self, run: int, layer: int, index: int) -> int:
        """The block of another layer with the same place in the same pass."""
        allocs = self.allocs.get((run, layer), ())
        if index >= len(allocs):
            raise NotAlike("layers make different numbers of blocks")
        return allocs[index]

    def write_copies(self, s: Segment, other: tuple[Segment, bool]) -> None:
        """Write the template for every layer that it stands for."""
        neighbour, ascending = other
        if self.relative(s) != self.relative(neighbour):
            raise NotAlike("the middle layers differ")
        extra, out, length = self.depth.extra, self.stream.events, len(s.events)
        slope = length if ascending else -length
        first = len(out) + (0 if ascending else extra * length)
        for offset, i in enumerate(s.events):
            if self.tape.events[i] >= 0:
                self.places[i] = (first + offset, slope)
        inner, margin = self.affine(s)
        for v in range(extra + 1) if ascending else range(extra, -1, -1):
            self.stream.pieces.append((len(out), s.events, TEMPLATE + v))
            if margin <= v <= extra - margin:
                out += [c + k * v for c, k in inner]
            else:
                self.write_edge(s, TEMPLATE + v)

    def write_edge(self, s: Segment, virtual: int) -> None:
        """One copy of the template whose neighbours are not copies themselves."""
        events, out = self.tape.events, self.stream.events
        for i in s.events:
            e = events[i]
            out.append(e if e >= 0 else ~self.place(~e, TEMPLATE, virtual))

    def affine(self, s: Segment) -> tuple[list[tuple[int, int]], int]:
        """Each event of copy v as (c, k) of c + k v, and how many copies at either end are not."""
        margin, inner = 0, []
        for i in s.events:
            e = self.tape.events[i]
            if e >= 0:
                inner.append((e, 0))
                continue
            named = self.names.get(~e)
            if named is None:
                raise NotAlike("a middle layer frees what belongs to no layer")
            run, of, index = named
            margin = max(margin, abs(of - TEMPLATE))
            if abs(of - TEMPLATE) > 2:
                raise NotAlike("layers reach too far")
            first, slope = self.places[self.counterpart(run, TEMPLATE, index)]
            inner.append((~(first + slope * (of - TEMPLATE)), -slope))
        return inner, margin

    def relative(self, s: Segment) -> list[object]:
        """A segment in names that do not depend on which layer it is, runs of frees sorted."""
        out: list[object] = []
        frees: list[tuple[int, ...]] = []
        for i in s.events:
            e = self.tape.events[i]
            if e >= 0:
                out += [*sorted(frees), e]
                frees = []
            else:
                run, of, index = self.names.get(~e, (OUTSIDE, 0, ~e))
                frees.append((of - s.layer if run != OUTSIDE else 0, run, index))
        return out + sorted(frees)


def regions(tape: Tape) -> Iterator[tuple[int | PhaseMark, int, int]]:
    """(layer, first event, end), and the phase marks where they stand.

    A layer that is left and entered again with no event between is one region.
    """
    open_layer, start = OUTSIDE, 0
    for layer, begin, mark in boundaries(tape):
        if mark is None and layer == open_layer:
            continue
        if begin > start:
            yield open_layer, start, begin
        if mark is not None:
            yield mark, begin, begin
        open_layer, start = layer, begin


def boundaries(tape: Tape) -> Iterator[tuple[int, int, PhaseMark | None]]:
    """(layer from here on, event, the phase that ends here), without layers that have no event."""
    marks: list[tuple[int, int | PhaseMark]] = [*tape.layers, *((p.end, p) for p in tape.phases)]
    marks.sort(key=lambda m: m[0])
    layer = OUTSIDE
    for at, (begin, mark) in enumerate(marks):
        if isinstance(mark, PhaseMark):
            yield layer, begin, mark
        else:
            layer = mark
        if at + 1 == len(marks) or marks[at + 1][0] > begin:
            yield layer, begin, None


def merged(segments: Iterator[Segment | PhaseMark]) -> Iterator[Segment | PhaseMark]:
    """Neighbouring segments of one layer as one."""
    last: Segment | PhaseMark | None = None
    for s in segments:
        if isinstance(s, Segment) and isinstance(last, Segment) and s.layer == last.layer:
            last.events += s.events
            continue
        if last is not None:
            yield last
        last = s
    if last is not None:
        yield last


def number_runs(segments: Iterator[Segment | PhaseMark]) -> Iterator[Segment | PhaseMark]:
    """Number the passes: neighbours by neighbours, in one direction, with nothing between them."""
    run, previous, direction = 0, OUTSIDE, 0
    for s in segments:
        layer = s.layer if isinstance(s, Segment) else OUTSIDE
        step = layer - previous
        if previous == OUTSIDE or layer == OUTSIDE or abs(step) != 1 or direction * step < 0:
            run, direction = run + 1, 0
        else:
            direction = step
        if isinstance(s, Segment):
            s.run = run
        previous = layer
        yield s
