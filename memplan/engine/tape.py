"""The stream of allocations and frees: the engine's one product."""

from __future__ import annotations

from typing import NamedTuple

OUTSIDE = -1
"""Layer of what belongs to no decoder layer."""
EMPTY_CACHE = "empty_cache"
"""Name of the mark, among those of the phases, at which the allocator's cache is emptied."""


class PhaseMark(NamedTuple):
    """The end of a phase: the events before ``end`` belong to it or to an earlier one."""

    end: int
    name: str
    step: int


class Tape:
    """Every allocation and free of a run, in order.

    Attributes:
        events: ``>= 0``: a block of so many bytes is allocated, its number is its index here;
            ``< 0``: block ``~event`` is freed.
        layers: (index, layer): from that event on, events belong to this decoder layer.
        phases: Where phases end, and where the allocator's cache is emptied (``EMPTY_CACHE``).
        origin: What a node of the graph remembers of where it was made: here, the layer.
    """

    annotates = False
    counts = False

    def __init__(self) -> None:
        self.events: list[int] = []
        self.layers: list[tuple[int, int]] = []
        self.phases: list[PhaseMark] = []
        self.origin: int = OUTSIDE

    def alloc(self, nbytes: int) -> int:
        """Record a block of ``nbytes``; its number."""
        events = self.events
        events.append(nbytes)
        return len(events) - 1

    def free(self, number: int) -> None:
        """Record that block ``number`` is given back."""
        self.events.append(~number)

    def claim_gradient(self, number: int) -> None:
        """Block ``number`` is a leaf's gradient: of interest to reports only."""

    def compute(self, flops: int) -> None:
        """A product or an attention kernel runs: of interest to who counts. [FLOPs]"""

    def empty_cache(self) -> None:
        """``torch.cuda.empty_cache()``: no block is freed, but segments without one go back."""
        self.end_phase(EMPTY_CACHE)

    def watch(self, root: object) -> None:
        """Modules are named as seen from ``root``: of interest to reports only."""

    def enter(self, origin: int) -> None:
        """What follows belongs to this layer, until the next call."""
        if origin != self.origin:
            self.origin = origin
            self.layers.append((len(self.events), origin))

    def finish(self) -> None:
        """The run is over: what dies from here on is not of it."""
        self.free = _ignore  # type: ignore[method-assign]

    def end_phase(self, name: str, step: int = OUTSIDE) -> None:
        """Close a phase here."""
        self.phases.append(PhaseMark(len(self.events), name, step))


def _ignore(number: int) -> None:
    """Take no note of a free after the run."""
