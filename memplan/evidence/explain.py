"""What a memory snapshot tells: what stood at its peak, of what kind, and who had asked for it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

from memplan.allocator.config import AllocatorConfig, parse_allocator_config
from memplan.errors import ConfigError
from memplan.evidence.frames import line_of, op_of
from memplan.evidence.lifetimes import (
    FOREVER,
    STOPPED,
    UNKNOWN,
    History,
    Life,
    categorise,
    read_history,
)
from memplan.evidence.snapshot import Event, Segment, Snapshot, read_snapshot
from memplan.evidence.trace import MODULE, Counter
from memplan.results import CATEGORIES

SCHEMA = "memplan.explain/1"
PEAK, END = "peak", "end"
SLACK = "allocator_slack"
BEFORE = "(before the recording began)"
NO_STACK = "(no stack recorded)"
IN_AUTOGRAD = "(autograd, no line of Python)"
RESERVES = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}
NOBODY = Life(0, 0, (), "", -1)


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks that have something in common. [bytes]"""

    name: str
    nbytes: int
    count: int


@dataclass(frozen=True, slots=True)
class SnapshotTotals:
    """One device when the snapshot was written.

    Attributes:
        requested_bytes: Of the live blocks, what was asked for. [bytes]
        allocated_bytes: What these blocks take. [bytes]
        pending_bytes: Given back, but another stream may still use them. [bytes]
        reserved_bytes: What the allocator holds of the device. [bytes]
        inactive_bytes: What of that is free. [bytes]
        largest_free_bytes: The largest free block: what fits without asking CUDA. [bytes]
        segments: How many segments that is.
    """

    requested_bytes: int
    allocated_bytes: int
    pending_bytes: int
    reserved_bytes: int
    inactive_bytes: int
    largest_free_bytes: int
    segments: int


@dataclass(frozen=True, slots=True)
class SnapshotMoment:
    """The moment that is explained.

    Attributes:
        at: ``peak`` of the history, or ``end`` where there is no history.
        event: Number of its event; -1: the start of the history, or none.
        requested_bytes: Of the live blocks, what was asked for. [bytes]
        allocated_bytes: What these blocks took. [bytes]
        reserved_bytes: What the allocator held of the device. [bytes]
        op: The operator that asked last.
        line: The line of Python that did.
    """

    at: str
    event: int
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    op: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """Memory that the device did not have.

    Attributes:
        event: Number of its event.
        requested_bytes: What was asked for. [bytes]
        live_bytes: What stood then, as asked for. [bytes]
        device_free_bytes: What CUDA said was free. [bytes]
        op: The operator that asked.
        line: The line of Python that did.
    """

    event: int
    requested_bytes: int
    live_bytes: int
    device_free_bytes: int
    op: str
    line: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one device's part of a snapshot tells.

    Attributes:
        snapshot: The file.
        device: The device.
        devices: All devices of the snapshot, with what each had reserved. [bytes]
        events: Events in the device's history.
        totals: When the snapshot was written.
        moment: What is explained below.
        breakdown: Bytes of each category at that moment; they sum to what was allocated. [bytes]
        modules: By the module, or whatever else the user had set as metadata; largest first.
        lines: By the line of Python that asked.
        ops: By the operator that asked.
        out_of_memory: The requests that failed, oldest first.
        notes: What a reader should know.
    """

    snapshot: str
    device: int
    devices: Mapping[int, int]
    events: int
    totals: SnapshotTotals
    moment: SnapshotMoment
    breakdown: Mapping[str, int]
    modules: tuple[Group, ...]
    lines: tuple[Group, ...]
    ops: tuple[Group, ...]
    out_of_memory: tuple[FailedRequest, ...] = ()
    notes: tuple[str, ...] = ()
    schema: str = field(default=SCHEMA)


def explain_snapshot(path: str | PathLike[str], *, device: int | None = None) -> Explanation:
    """What a file of ``torch.cuda.memory._dump_snapshot`` tells.

    Args:
        path: A ``.pickle`` file, packed with gzip or not.
        device: Number of the device; the one with most memory where it is not given.

    Raises:
        ConfigError: The file is no snapshot, or does not know the device.
    """
    return explain(read_snapshot(path), device=device)


def explain(snapshot: Snapshot, *, device: int | None = None) -> Explanation:
    """What a snapshot tells of one device."""
    devices = _devices(snapshot)
    if device is None:
        device = max(devices, key=lambda d: (devices[d], len(_trace(snapshot, d)), -d), default=0)
    elif device not in devices:
        known = ", ".join(map(str, devices)) or "none"
        raise ConfigError(f"device {device}: not in {snapshot.path}; its devices: {known}.")
    return _Device(snapshot, device).explain(devices)


def _trace(snapshot: Snapshot, device: int) -> tuple[Event, ...]:
    return snapshot.traces[device] if device < len(snapshot.traces) else ()


def _devices(snapshot: Snapshot) -> dict[int, int]:
    """Reserved bytes of each device that the snapshot knows something of."""
    found = {d: 0 for d, trace in enumerate(snapshot.traces) if trace}
    for segment in snapshot.segments:
        found[segment.device] = found.get(segment.device, 0) + segment.total_bytes
    return dict(sorted(found.items()))


def totals_of(segments: Iterable[Segment]) -> SnapshotTotals:
    """What a device's segments add up to."""
    segments = tuple(segments)
    blocks = [b for s in segments for b in s.blocks]
    live = [b for b in blocks if b.state == "active_allocated"]
    free = [b.nbytes for b in blocks if b.state == "inactive"]
    allocated, reserved = sum(b.nbytes for b in live), sum(s.total_bytes for s in segments)
    pending = sum(b.nbytes for b in blocks) - allocated - sum(free)
    return SnapshotTotals(
        sum(b.requested_bytes for b in live), allocated, pending, reserved,
        reserved - allocated - pending, max(free, default=0), len(segments),
    )  # fmt: skip


class _Device:
    """One device of a snapshot: its history, replayed."""

    def __init__(self, snapshot: Snapshot, device: int) -> None:
        self.snapshot, self.device = snapshot, device
        self.events = _trace(snapshot, device)
        segments = [s for s in snapshot.segments if s.device == device]
        self.totals = totals_of(segments)
        self.standing = [b for s in segments for b in s.blocks if b.state == "active_allocated"]
        self.history = read_history(self.events, self.standing)
        self.notes: list[str] = []
        categorise(self.history, self._marks())

    def _marks(self) -> Iterator[tuple[int, str]]:
        """Events at which an optimizer step began, or memory ran out."""
        times = [e.get("time_us", 0) for e in self.events]
        for device, time in self.snapshot.optimizer_steps:
            if device == self.device and times:
                yield bisect_left(times, time), "optimizer_step"
        for index, event in enumerate(self.events):
            if event["action"] == "oom":
                yield index, STOPPED

    def explain(self, devices: Mapping[int, int]) -> Explanation:
        """Put it together."""
        moment, lives = self._moment()
        breakdown = dict.fromkeys((*CATEGORIES[:-1], UNKNOWN, SLACK), 0)
        for life in lives:
            breakdown[life.category] += life.nbytes
        breakdown[SLACK] = moment.allocated_bytes - sum(breakdown.values())
        failed = tuple(self._failed())
        self.notes += describe_history(self.history, self.events)
        return Explanation(
            self.snapshot.path, self.device, devices, len(self.events), self.totals, moment,
            breakdown, grouped(lives, module_name), grouped(lives, line_name),
            grouped(lives, op_name), failed, tuple(self.notes),
        )  # fmt: skip

    def _moment(self) -> tuple[SnapshotMoment, list[Life]]:
        """The allocated peak of the history, or the end if there is none; and what stood there."""
        if not any(e["action"] == "alloc" for e in self.events):
            lives = [x for x in self.history.lives if x.death == FOREVER]
            t = self.totals
            return SnapshotMoment(
                END, -1, sum(x.nbytes for x in lives), t.allocated_bytes, t.reserved_bytes
            ), lives
        event, allocated = self._peak()
        lives = self._live_at(event)
        last = max(lives, key=lambda x: x.birth, default=NOBODY)
        return SnapshotMoment(
            PEAK, event, sum(x.nbytes for x in lives), allocated, self._reserved_at(event),
            op_name(last), line_name(last),
        ), lives  # fmt: skip

    def _live_at(self, event: int) -> list[Life]:
        """What stands right after an event."""
        return [x for x in self.history.lives if x.birth <= event < x.death]

    def _peak(self) -> tuple[int, int]:
        """Number of the event that first reached the allocated peak, and the peak. [bytes]"""
        counter = Counter(self._config())
        for life in self.history.lives:
            if life.birth < 0:
                counter.take({"action": "alloc", "addr": life.address, "size": life.nbytes})
        best, at = counter.allocated_bytes, -1
        for index, event in enumerate(self.events):
            counter.take(event)
            if counter.allocated_bytes > best:
                best, at = counter.allocated_bytes, index
        off = counter.allocated_bytes - self.totals.allocated_bytes - self.totals.pending_bytes
        if off:
            self.notes.append(
                f"the allocated peak is simulated; at the end it is {abs(off):,} bytes "
                f"{'above' if off > 0 else 'below'} what the snapshot says."
            )
        return at, best

    def _config(self) -> AllocatorConfig:
        """The allocator's options, as far as the snapshot tells."""
        text = str(self.snapshot.settings.get("PYTORCH_CUDA_ALLOC_CONF") or "")
        try:
            return parse_allocator_config(text)
        except ConfigError as error:
            self.notes.append(f"the allocator's default options are assumed: {error}")
            return AllocatorConfig()

    def _reserved_at(self, event: int) -> int:
        """What the allocator held then: what it holds at the end, less what came after. [bytes]"""
        after = self.events[event + 1 :]
        change: int = sum(RESERVES.get(e["action"], 0) * e.get("size", 0) for e in after)
        return max(self.totals.reserved_bytes - change, 0)

    def _failed(self) -> Iterator[FailedRequest]:
        """The requests that failed."""
        for index, e in enumerate(self.events):
            if e["action"] == "oom":
                live = sum(x.nbytes for x in self._live_at(index))
                free = e.get("device_free", e.get("addr", 0))
                frames = e["frames"]
                yield FailedRequest(
                    index, e.get("size", 0), live, free, op_of(frames), line_of(frames)
                )


def describe_history(history: History, events: Sequence[Event]) -> Iterator[str]:
    """What a history lacks, and what was inferred."""
    stacks = [x.frames for x in history.lives if x.frames]
    if not events:
        yield (
            "no history was recorded (torch.cuda.memory._record_memory_history()): this is what "
            "stood when the snapshot was written, not its peak."
        )
    early = [x for x in history.lives if x.birth < 0]
    if events and early:
        nbytes = sum(x.nbytes for x in early)
        yield (
            f"the history begins in the middle, because recording began late or max_entries was "
            f"reached: {len(early):,} blocks of {nbytes:,} bytes are older. They are counted, "
            "but an earlier peak is not seen, and who asked for them may be unknown."
        )
    if history.gone:
        yield f"{history.gone:,} blocks live in the history and not in the segments."
    if not stacks:
        yield "no stacks were recorded, so nothing can be put in a category."
        return
    yield "categories are inferred from the recorded stacks and lifetimes."
    if not any(not f["filename"].endswith(".py") for stack in stacks for f in stack):
        yield "only Python's stacks were recorded (stacks='all' has the operators of the backward)."


def grouped(lives: Iterable[Life], name: Callable[[Life], str]) -> tuple[Group, ...]:
    """Blocks by a name of theirs, the largest first; those without one are left out."""
    found: dict[str, list[int]] = {}
    for life in lives:
        label = name(life)
        if label:
            total = found.setdefault(label, [0, 0])
            total[0] += life.nbytes
            total[1] += 1
    ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return tuple(Group(label, nbytes, count) for label, (nbytes, count) in ranked)


def module_name(life: Life) -> str:
    """The metadata that the user had set; memplan's own recorder sets the module's name."""
    return life.metadata.removeprefix(MODULE)


def line_name(life: Life) -> str:
    """The line of Python that asked, or why there is none."""
    return line_of(life.frames) or _nameless(life) or IN_AUTOGRAD


def op_name(life: Life) -> str:
    """The operator that asked, or why it is not known."""
    return op_of(life.frames) or _nameless(life) or life.asker


def _nameless(life: Life) -> str:
    if life.asker != UNKNOWN:
        return ""
    return NO_STACK if life.birth >= 0 else BEFORE
