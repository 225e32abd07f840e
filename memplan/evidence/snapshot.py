"""Read what ``torch.cuda.memory._dump_snapshot`` wrote, from a file that nobody vouches for.

The file is a pickle: nothing in it is run, and its size is bounded before and while it is read.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memplan.errors import ConfigError
from memplan.evidence.unpickle import PickleError, load_plain

MAX_FILE_BYTES = 2 << 30
MAX_RATIO = 250  # of unpacked to packed bytes; gzip packs real snapshots 10 to 60 times
RATIO_FROM_BYTES = 16 << 20
MAX_BLOCKS = 5_000_000
MAX_EVENTS = 20_000_000
MAX_FRAMES = 4096  # of one stack
MAX_DEVICES = 1024
GZIP_MAGIC = b"\x1f\x8b"
OTHER_MAGIC = {b"PK\x03\x04": "a zip file, such as torch.save writes", b"{": "JSON", b"<": "HTML"}
STATES = ("active_allocated", "active_awaiting_free", "active_pending_free", "inactive")

Frame = Mapping[str, Any]
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SnapshotBlock:
    """One block of a segment.

    Attributes:
        address: On the device.
        nbytes: What the allocator cut. [bytes]
        requested_bytes: What was asked for, 0 if it is free. [bytes]
        state: One of ``STATES``.
        frames: The stack that asked, innermost first; empty if torch kept none.
    """

    address: int
    nbytes: int
    requested_bytes: int
    state: str
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory that the allocator took from CUDA. [bytes]"""

    device: int
    address: int
    total_bytes: int
    stream: int
    segment_type: str
    blocks: tuple[SnapshotBlock, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot with its form checked.

    Attributes:
        path: Where it was read.
        segments: Of all devices.
        traces: Events of each device, oldest first, as torch writes them.
        settings: The allocator's settings, where the torch was new enough to write them.
        optimizer_steps: (device, when) of each optimizer step that the profiler's marks tell of.
            [microseconds]
    """

    path: str
    segments: tuple[Segment, ...]
    traces: tuple[tuple[Event, ...], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    optimizer_steps: tuple[tuple[int, int], ...] = ()


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """The snapshot in a ``.pickle`` file, packed with gzip or not.

    Raises:
        ConfigError: The file cannot be read, is too large, or holds anything but a snapshot.
    """
    file = Path(os.fspath(path)).expanduser()
    try:
        return checked_snapshot(_load(file), str(file))
    except PickleError as error:
        raise ConfigError(f"{file}: {error}.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigError(f"{file}: is damaged or breaks off: gzip cannot unpack it.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read: {reason}.") from None
    except MemoryError:
        raise ConfigError(f"{file}: is larger than this machine's memory can take.") from None


def _load(file: Path) -> Any:
    """The plain value in a file of a bounded size."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{file}: is no regular file.")
    if status.st_size > MAX_FILE_BYTES:
        raise _too_large(file, status.st_size)
    with file.open("rb") as raw:
        head = raw.peek(4)[:4]
        _check_magic(file, head)
        if head[:2] != GZIP_MAGIC:
            return load_plain(raw)
        with gzip.GzipFile(fileobj=raw) as unpacked:
            bounded = _Bounded(unpacked, file, status.st_size)
            return load_plain(io.BufferedReader(bounded, 1 << 18))


def _too_large(file: Path, nbytes: int) -> ConfigError:
    return ConfigError(
        f"{file}: {nbytes:,} bytes; snapshots of up to {MAX_FILE_BYTES >> 30} GiB are read. Record "
        "fewer events: torch.cuda.memory._record_memory_history(max_entries=100_000)."
    )


def _check_magic(file: Path, head: bytes) -> None:
    if not head:
        raise ConfigError(f"{file}: the file is empty.")
    for magic, kind in OTHER_MAGIC.items():
        if head.startswith(magic):
            raise ConfigError(
                f"{file}: is {kind}; expected what torch.cuda.memory._dump_snapshot writes."
            )


class _Bounded(io.RawIOBase):
    """What gzip unpacks, up to a size and to a ratio that no snapshot reaches."""

    def __init__(self, source: gzip.GzipFile, file: Path, packed_bytes: int) -> None:
        self.source, self.file = source, file
        self.limit = min(MAX_FILE_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * packed_bytes))
        self.count = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack the next bytes."""
        data = self.source.read(len(buffer))
        self.count += len(data)
        if self.count > self.limit:
            raise ConfigError(
                f"{self.file}: unpacks to more than {self.limit >> 20:,} MiB, which no snapshot "
                "of its size does; it is not read."
            )
        buffer[: len(data)] = data
        return len(data)


def checked_snapshot(value: Any, path: str) -> Snapshot:
    """The snapshot that ``value`` is.

    Raises:
        ConfigError: It is none.
    """
    check = _Checks(path)
    top = check.mapping(value, "the file")
    if "segments" not in top:
        found = ", ".join(repr(str(k)[:40]) for k in list(top)[:6]) or "nothing"
        raise ConfigError(f"{path}: is no memory snapshot: no 'segments' in it, but {found}.")
    segments = tuple(check.segments(check.sequence(top["segments"], "segments")))
    traces = check.sequence(top.get("device_traces", ()), "device_traces")
    return Snapshot(
        path, segments, tuple(check.traces(traces)),
        check.mapping(top.get("allocator_settings") or {}, "allocator_settings"),
        tuple(check.steps(top.get("external_annotations") or ())),
    )  # fmt: skip


class _Checks:
    """Takes a snapshot's values apart and names the one that is not as torch writes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.blocks = self.events = 0
        self.stacks: dict[int, tuple[Frame, ...]] = {}
        self.frames: set[int] = set()

    def error(self, where: str, expected: str, value: Any) -> ConfigError:
        """What stands there instead of what was expected."""
        found = type(value).__name__ if isinstance(value, (dict, list, tuple)) else repr(value)
        return ConfigError(f"{self.path}: {where}: expected {expected}, got {found[:60]}.")

    def mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        """A mapping."""
        if not isinstance(value, dict):
            raise self.error(where, "a mapping", value)
        return value

    def sequence(self, value: Any, where: str) -> list[Any] | tuple[Any, ...]:
        """A list."""
        if not isinstance(value, (list, tuple)):
            raise self.error(where, "a list", value)
        return value

    def number(self, item: Mapping[str, Any], key: str, where: str, default: Any = None) -> int:
        """A count, size or address."""
        value = item.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise self.error(f"{where}: {key}", "a number", value)
        return value

    def segments(self, values: Iterable[Any]) -> Iterable[Segment]:
        """The segments of all devices."""
        for i, value in enumerate(values):
            where = f"segments[{i}]"
            s = self.mapping(value, where)
            address = self.number(s, "address", where)
            blocks = tuple(self.segment_blocks(s, address, where))
            total = self.number(s, "total_size", where)
            if sum(b.nbytes for b in blocks) > total:
                raise ConfigError(f"{self.path}: {where}: its blocks are larger than it is.")
            yield Segment(
                self.number(s, "device", where, 0), address, total,
                self.number(s, "stream", where, 0), str(s.get("segment_type", ""))[:40], blocks,
            )  # fmt: skip

    def segment_blocks(
        self, segment: Mapping[str, Any], address: int, where: str
    ) -> Iterable[SnapshotBlock]:
        """The blocks of one segment; old snapshots leave their addresses to be added up."""
        for value in self.sequence(segment.get("blocks", ()), f"{where}: blocks"):
            self.blocks += 1
            if self.blocks > MAX_BLOCKS:
                raise ConfigError(f"{self.path}: holds more than {MAX_BLOCKS:,} blocks.")
            b = self.mapping(value, f"{where}: a block")
            size, state = self.number(b, "size", where), b.get("state")
            if state not in STATES:
                raise self.error(f"{where}: state", f"one of {', '.join(STATES)}", state)
            live = size if state.startswith("active") else 0
            address = self.number(b, "address", where, address)
            asked = self.number(b, "requested_size", where, live) if live else 0
            yield SnapshotBlock(address, size, asked, state, self.stack(b.get("frames"), where))
            address += size

    def traces(self, values: Iterable[Any]) -> Iterable[tuple[Event, ...]]:
        """The events of each device."""
        for device, value in enumerate(values):
            if device >= MAX_DEVICES:
                raise ConfigError(f"{self.path}: device_traces: more than {MAX_DEVICES} devices.")
            where = f"device_traces[{device}]"
            yield tuple(self.event(e, where) for e in self.sequence(value, where))

    def event(self, value: Any, where: str) -> Event:
        """One event, its stack checked."""
        self.events += 1
        if self.events > MAX_EVENTS:
            raise ConfigError(f"{self.path}: holds more than {MAX_EVENTS:,} events.")
        e = dict(self.mapping(value, where))
        if not isinstance(e.get("action"), str):
            raise self.error(f"{where}: action", "a word", e.get("action"))
        for key in ("addr", "size", "stream", "device_free", "time_us"):
            self.number(e, key, where, 0)
        e["user_metadata"] = str(e.get("user_metadata") or "")[:200]
        e["frames"] = self.stack(e.get("frames"), where)
        return e

    def steps(self, values: Any) -> Iterable[tuple[int, int]]:
        """When the optimizers' steps began, by the marks that torch.optim sets itself."""
        where = "external_annotations"
        for value in self.sequence(values, where):
            mark = self.mapping(value, where)
            name = str(mark.get("name", ""))
            if mark.get("stage") == "START" and name.startswith("Optimizer.step#"):
                yield self.number(mark, "device", where, 0), self.number(mark, "time_us", where)

    def stack(self, value: Any, where: str) -> tuple[Frame, ...]:
        """A stack; the file holds each one once, and so does the result."""
        if value is None:
            return ()
        known = self.stacks.get(id(value))
        if known is None:
            frames = self.sequence(value, f"{where}: frames")[:MAX_FRAMES]
            known = self.stacks[id(value)] = tuple(self.frame(f, where) for f in frames)
        return known

    def frame(self, value: Any, where: str) -> Frame:
        """One frame of a stack."""
        if id(value) not in self.frames:
            f = self.mapping(value, f"{where}: a frame")
            if not (isinstance(f.get("filename"), str) and isinstance(f.get("name"), str)):
                raise self.error(f"{where}: a frame", "its filename and name", value)
            self.number(f, "line", where)
            self.frames.add(id(value))
        frame: Frame = value
        return frame
