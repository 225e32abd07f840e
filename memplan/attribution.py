"""What stands at the peak: every live block in a category, and the op that asked for the last.

A category takes lifetimes, which only a finished run has.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from memplan.categories import BACKWARD, BASE, BATCH, OTHER, WORKSPACE, Fate, category_of
from memplan.engine.annotate import AnnotatedTape, Origin
from memplan.engine.repeat import Stream
from memplan.engine.tape import EMPTY_CACHE, OUTSIDE, PhaseMark
from memplan.results import CATEGORIES, PeakDetail, PeakMoment

LAYER = re.compile(r"(?<=layers\.)\d+")
OF_BATCH = ("next_batch", "count_items", "count_valid", "start_total", "move_to_device")
"""Functions of the loops that make the batch, and what they make beside it."""
WITH_BATCH = ("optimizer_init", "forward")
"""Phases of the training whose batch is told from the rest."""


@dataclass(frozen=True, slots=True)
class Block:
    """One live block.

    Attributes:
        requested_bytes: What was asked for. [bytes]
        category: One of ``results.CATEGORIES``.
        module: Qualified name of the module that asked.
        op: The operator that asked.
    """

    requested_bytes: int
    category: str
    module: str
    op: str


class Attribution:
    """The blocks of an annotated run, and the stream of all layers that was written from it."""

    def __init__(self, tape: AnnotatedTape, stream: Stream) -> None:
        self.tape, self.stream = tape, stream
        self.phases = [p for p in tape.phases if p.name != EMPTY_CACHE]
        self.ends = [p.end for p in self.phases]
        self.deaths = {~e: i for i, e in enumerate(tape.events) if e < 0}
        self.backward_work = [n for n, origin in tape.origins.items() if origin.is_backward]

    def live_at(self, event: int) -> list[Block]:
        """The blocks that live right after an event of the stream."""
        live: dict[int, int] = {}
        for i, e in enumerate(self.stream.events[: event + 1]):
            if e >= 0:
                live[i] = e
            else:
                del live[~e]
        return [self.block(i, nbytes) for i, nbytes in live.items()]

    def block(self, event: int, nbytes: int) -> Block:
        """The block that an event of the stream allocates."""
        number, layer = self.stream.origin(event)
        origin = self.tape.origins[number]
        return Block(nbytes, self.category(number, origin), in_layer(origin, layer), origin.op)

    def category(self, number: int, origin: Origin) -> str:
        """What became of a block."""
        phase = self.phases[bisect_right(self.ends, number)]
        death = self.deaths.get(number, len(self.tape.events))
        following = bisect_left(self.backward_work, number)
        source = source_of(origin)
        fate = Fate(
            OTHER if source == BATCH and phase.name not in WITH_BATCH else source,
            phase.name,
            survives=death >= phase.end,
            is_gradient=number in self.tape.gradients,
            is_used=following < len(self.backward_work) and self.backward_work[following] < death,
        )
        return category_of(fate)


def source_of(origin: Origin) -> str:
    """Who asked for a block, in the words of ``categories``."""
    if origin.op == "workspace":
        return WORKSPACE
    if origin.op in OF_BATCH:
        return BATCH
    if origin.is_backward:
        return BACKWARD
    return BASE if origin.source.startswith("memplan.quantization") else OTHER


def in_layer(origin: Origin, layer: int) -> str:
    """The module's name, with the layer of the full model in place of the representative's."""
    return origin.module if layer == OUTSIDE else LAYER.sub(str(layer), origin.module)


def breakdown(blocks: Iterable[Block], allocated_bytes: int) -> dict[str, int]:
    """Bytes of each category; what the allocator handed out beyond them is slack. [bytes]"""
    totals = dict.fromkeys(CATEGORIES, 0)
    for b in blocks:
        totals[b.category] += b.requested_bytes
    totals["allocator_slack"] = allocated_bytes - sum(totals.values())
    return totals


def describe_peak(
    attribution: Attribution, event: int, mark: PhaseMark, allocated_bytes: int
) -> PeakDetail:
    """The peak's moment and breakdown.

    Args:
        attribution: The annotated run.
        event: The event of its stream at which the peak was reached.
        mark: The phase, and its step counted from 0.
        allocated_bytes: The allocator's peak. [bytes]
    """
    last = attribution.block(event, 0)
    moment = PeakMoment(mark.step + 1, mark.name, last.module, last.op)
    return PeakDetail(moment, breakdown(attribution.live_at(event), allocated_bytes))
