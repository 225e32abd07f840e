"""The events that torch's allocator recorded: which blocks stand at a moment, and what they are.

Events are those of ``torch.cuda.memory._snapshot()["device_traces"]``, phase by phase. A simulated
allocator takes them too, so that the moment of the allocated peak is known to the event: torch's
trace has what was asked for, and not what the block took.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memplan.allocator import build_allocator
from memplan.allocator.blocks import Block
from memplan.allocator.caching import DEFAULT_CONFIG, Allocator
from memplan.allocator.config import AllocatorConfig
from memplan.allocator.rounding import GRANULE
from memplan.categories import BACKWARD, BATCH, OTHER, Fate, category_of
from memplan.evidence.frames import (
    ADAPTER,
    OPTIMIZER,
    Frame,
    is_backward_work,
    line_of,
    op_of,
    source_of,
)
from memplan.evidence.recording import BlockGroup
from memplan.results import CATEGORIES

Event = Mapping[str, Any]
GRADIENT = "memplan:gradient"
"""Metadata of the event that says that a block became a leaf's gradient; the module follows."""
MODULE = "memplan:module:"
"""Metadata of what is asked for inside a module: this, and the module's qualified name."""
BATCH_MARK = "memplan:batch"
"""Metadata of what is asked for before a step's first module runs."""
GIVEN_BACK = ("segment_free", "segment_unmap")
"""Events of the cache that is emptied."""
BEFORE_TRAINING = {ADAPTER: "adapter", OPTIMIZER: "optimizer_init"}


@dataclass(slots=True)
class Birth:
    """A block that was handed out.

    Attributes:
        index: Number of its event in its phase.
        nbytes: What was asked for. [bytes]
        frames: The stack that asked.
        metadata: What the recorder had set.
        phase: Name of the phase.
        step: Its step; 0 is before the training.
        number: Of the phase, from the first of the run.
        death: Number of the event that gave it back, if in the same phase.
        is_gradient: Whether it became a leaf's gradient.
        category: One of ``results.CATEGORIES``, once the phase is over.
        owner: Name of the module whose parameter, gradient or state it holds, where it is known.
    """

    index: int
    nbytes: int
    frames: Sequence[Frame]
    metadata: str
    phase: str
    step: int
    number: int
    death: int | None = None
    is_gradient: bool = False
    category: str = ""
    owner: str = ""

    @property
    def module(self) -> str:
        """The module that the block is a parameter's of, else the one that was running."""
        if self.owner:
            return self.owner
        return self.metadata[len(MODULE) :] if self.metadata.startswith(MODULE) else ""


@dataclass(slots=True)
class Moment:
    """What stands at one event.

    Attributes:
        births: The live blocks.
        last: The block that was asked for there.
        allocated_bytes: What the allocator had handed out. [bytes]
    """

    births: list[Birth]
    last: Birth | None
    allocated_bytes: int


class Counter:
    """A simulated allocator for each stream; together, what torch counts as allocated."""

    def __init__(self, config: AllocatorConfig = DEFAULT_CONFIG) -> None:
        self.config = config
        self.streams: dict[int, Allocator] = {}
        self.blocks: dict[int, tuple[Allocator, Block]] = {}
        self.allocated_bytes = 0

    def take(self, event: Event) -> None:
        """Do what the event says."""
        action = event["action"]
        if action == "alloc":
            self._alloc(event["addr"], event["size"], event.get("stream", 0))
        elif action == "free_completed":
            self._free(event["addr"])
        elif action in GIVEN_BACK:
            for allocator in self.streams.values():
                allocator.empty_cache()

    def _alloc(self, address: int, nbytes: int, stream: int) -> None:
        if stream not in self.streams:
            self.streams[stream] = build_allocator(self.config)
        block = self.streams[stream].malloc(nbytes)
        self.blocks[address] = self.streams[stream], block
        self.allocated_bytes += block.size * GRANULE

    def _free(self, address: int) -> None:
        allocator, block = self.blocks.pop(address, (None, None))
        if allocator is not None and block is not None:
            self.allocated_bytes -= block.size * GRANULE
            allocator.free(block)


@dataclass(slots=True)
class Phase:
    """One phase's events, with what stood when it began.

    Attributes:
        name: Of the phase.
        step: Its step; 0 is before the training.
        number: From the first phase of the run.
        before: Blocks that stood at its start.
        born: Blocks that it made.
        deaths: (number of the event, block) of what it gave back.
        peak_event: Number of the event that first reached its allocated peak; -1: its start.
        peak_bytes: That peak, by the simulated allocator. [bytes]
    """

    name: str
    step: int
    number: int
    before: list[Birth]
    born: list[Birth] = field(default_factory=list)
    deaths: dict[int, int] = field(default_factory=dict)
    peak_event: int = -1
    peak_bytes: int = 0

    def settle(self) -> None:
        """Put every block that it made in its category: what became of it is known now."""
        work = [b.index for b in self.born if self.name == "backward" and is_backward(b)]
        for birth in self.born:
            birth.category = category_of(fate_of(birth, work))

    def at(self, event: int, allocated_bytes: int) -> Moment:
        """What stands right after an event."""
        alive = [
            b
            for b in (*self.before, *self.born)
            if self._is_born(b, event) and self.deaths.get(id(b), event + 1) > event
        ]
        last = next((b for b in self.born if b.index == event), None)
        return Moment(alive, last, allocated_bytes)

    def _is_born(self, birth: Birth, event: int) -> bool:
        return birth.index <= event or birth.number != self.number


def is_backward(birth: Birth) -> bool:
    """Whether a node's backward asked for a block."""
    return is_backward_work(birth.frames)


def fate_of(birth: Birth, backward_work: Sequence[int]) -> Fate:
    """What is known of a block whose phase is over."""
    source, phase = source_of(birth.frames), birth.phase
    if birth.metadata == BATCH_MARK and (phase == "forward" or is_first_batch(phase, source)):
        source = BATCH
    if not birth.step and source in BEFORE_TRAINING:
        phase = BEFORE_TRAINING[source]
    used = False
    if birth.phase == "backward":
        source = BACKWARD if source not in ("workspace",) and is_backward(birth) else source
        following = bisect_right(backward_work, birth.index)
        end = birth.death if birth.death is not None else 1 << 62
        used = following < len(backward_work) and backward_work[following] < end
    return Fate(source, phase, birth.death is None, birth.is_gradient, used)


def is_first_batch(phase: str, source: str) -> bool:
    """Whether a loop asked, between making its optimizer and its first forward."""
    return phase == "optimizer_init" and source == OTHER


class Ledger:
    """The live blocks of a run, kept from phase to phase."""

    def __init__(self, config: AllocatorConfig = DEFAULT_CONFIG) -> None:
        self.counter = Counter(config)
        self.live: dict[int, Birth] = {}
        self.phases = self.unknown_frees = 0

    def phase(self, name: str, step: int, events: Iterable[Event]) -> Phase:
        """Take the events of the next phase."""
        done = Phase(name, step, self.phases, list(self.live.values()))
        self.phases += 1
        done.peak_bytes = self.counter.allocated_bytes
        index = -1
        for event in events:
            index += self._take(done, event, index + 1)
        return done

    def _take(self, phase: Phase, event: Event, index: int) -> int:
        """Take one event; 1 if it is one of a block, which takes a number."""
        action, address = event["action"], event.get("addr", 0)
        if action == "alloc":
            birth = Birth(
                index, event["size"], event.get("frames", ()), event.get("user_metadata", ""),
                phase.name, phase.step, phase.number,
            )  # fmt: skip
            phase.born.append(birth)
            self.live[address] = birth
        elif action == "free_completed":
            self._free(phase, address, index)
        elif action == "annotate":
            self._claim(address, event.get("user_metadata", ""))
            return 0
        elif action not in GIVEN_BACK:
            return 0
        self.counter.take(event)
        if self.counter.allocated_bytes > phase.peak_bytes:
            phase.peak_bytes, phase.peak_event = self.counter.allocated_bytes, index
        return int(action not in GIVEN_BACK)

    def _free(self, phase: Phase, address: int, index: int) -> None:
        birth = self.live.pop(address, None)
        if birth is None:
            self.unknown_frees += 1
            return
        phase.deaths[id(birth)] = index
        if birth.number == phase.number:
            birth.death = index

    def _claim(self, address: int, metadata: str) -> None:
        if metadata.startswith(GRADIENT) and address in self.live:
            self.live[address].is_gradient = True
            self.name(address, metadata[len(GRADIENT) :])

    def name(self, address: int, owner: str) -> None:
        """Say whose block it is that lives at an address."""
        if address in self.live and owner:
            self.live[address].owner = owner


def breakdown(moment: Moment) -> dict[str, int]:
    """Bytes of each category; what the allocator handed out beyond them is slack. [bytes]"""
    totals = dict.fromkeys(CATEGORIES, 0)
    for b in moment.births:
        totals[b.category] += b.nbytes
    totals["allocator_slack"] = moment.allocated_bytes - sum(totals.values())
    return totals


def groups(moment: Moment, most: int = 200) -> tuple[BlockGroup, ...]:
    """The blocks of a moment by where they came from, the largest first."""
    found: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for b in moment.births:
        group = found[b.category, b.module, op_of(b.frames), line_of(b.frames)]
        group[0] += b.nbytes
        group[1] += 1
    ranked = sorted(found.items(), key=lambda item: -item[1][0])[:most]
    return tuple(BlockGroup(total, count, *key) for key, (total, count) in ranked)
