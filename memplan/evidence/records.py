"""Measurements on disk: one JSON line a run, appended and never overwritten.

A line is written under a lock, in one go, and is on the disk before the next run starts. A writer
that was killed in the middle of a line leaves it unfinished; the next one marks it as such and goes
on behind it, so that no finished line is ever touched. A database was the alternative, but lines
can be read, merged and reviewed by anything.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

from memplan.errors import ConfigError, MemplanError
from memplan.evidence.recording import Recording
from memplan.workload import DEFAULTS

FAMILY = "memplan.measurement/"
VERSION = 1
SCHEMA = f"{FAMILY}{VERSION}"
LABELS = ("cuda", "virtual")
MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 8 << 20  # a hundred times what a run gives
ROOM_BYTES = 1 << 20  # what must be free of the disk before a run starts
UNFINISHED = b" <- unfinished line of a writer that was stopped"


class RecordsError(MemplanError):
    """The records cannot be written; what was measured is in the caller's hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run that was measured.

    Attributes:
        id: Names this measurement among all others.
        time: When it ended, in UTC, as ISO 8601.
        label: ``cuda``: a real card; ``virtual``: PyTorch on the virtual GPU.
        workload: What was run, every key; the model is a preset or its config, never a path.
        gpu: Name that CUDA reports.
        driver: Version of the driver, where it could be asked.
        versions: Of the libraries that ran.
        recording: What the allocator counted.
        rank: Of several ranks, which one was measured.
        world_size: How many there were.
    """

    id: str
    time: str
    label: str
    workload: Mapping[str, Any]
    gpu: str
    driver: str | None
    versions: Mapping[str, str]
    recording: Recording
    rank: int = 0
    world_size: int = 1

    @property
    def key(self) -> str:
        """What was measured; equal for two runs of one workload."""
        return workload_key(self.workload, self.label)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, fit for JSON and for `from_mapping`."""
        of_many = {"rank": self.rank, "world_size": self.world_size} if self.world_size > 1 else {}
        return {
            "schema": SCHEMA,
            "id": self.id,
            "time": self.time,
            "label": self.label,
            "workload": dict(self.workload),
            "gpu": self.gpu,
            "driver": self.driver,
            "versions": dict(self.versions),
            **of_many,
            "recording": self.recording.to_mapping(),
        }

    @classmethod
    def from_mapping(cls, values: Any) -> Measurement:
        """The measurement of such a mapping.

        Raises:
            MemplanError: It is none, or one of a newer memplan.
        """
        check_schema(values)
        for key, kind in KINDS.items():
            if not isinstance(values.get(key), kind):
                raise ConfigError(f"{key} is missing or of the wrong kind.")
        if values["label"] not in LABELS:
            raise ConfigError(f"label: expected {' or '.join(LABELS)}, got {values['label']!r}.")
        given = {key: values[key] for key in (*KINDS, "driver") if key in values}
        given.setdefault("driver", None)
        given |= _ranks(values)
        return cls(**{**given, "recording": Recording.from_mapping(values["recording"])})


KINDS: dict[str, type | tuple[type, ...]] = {
    **{"id": str, "time": str, "label": str, "workload": dict, "gpu": str, "versions": dict},
    "recording": dict,
}


def _ranks(values: Mapping[str, Any]) -> dict[str, int]:
    """Which rank of how many; lines of one device say nothing of it."""
    rank, size = values.get("rank", 0), values.get("world_size", 1)
    if type(rank) is not int or type(size) is not int or not 0 <= rank < size:
        raise ConfigError(f"rank {str(rank)[:20]} of {str(size)[:20]}: there is no such rank.")
    return {"rank": rank, "world_size": size}


def check_schema(values: Any) -> None:
    """Refuse what is no measurement, and what a newer memplan wrote."""
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema == SCHEMA:
        return
    version = str(schema).removeprefix(FAMILY)
    if str(schema).startswith(FAMILY) and version.isdigit() and int(version) > VERSION:
        raise ConfigError(f"{schema} was written by a newer memplan; this one reads {SCHEMA}.")
    raise ConfigError(f"expected a measurement with schema {SCHEMA}, got {str(schema)[:60]!r}.")


def workload_key(workload: Mapping[str, Any], label: str) -> str:
    """A name for what is run: keys at their default do not count, so that new ones change none."""
    told = {k: v for k, v in workload.items() if k not in DEFAULTS or v not in _defaults(k)}
    return _digest([label, told])


def _defaults(key: str) -> tuple[Any, ...]:
    default = DEFAULTS[key]
    return (default, list(default)) if isinstance(default, tuple) else (default,)


def measurement_id(workload: Mapping[str, Any], label: str, time: str, rank: int = 0) -> str:
    """A name for one measurement; ranks may end at the same microsecond."""
    return _digest([workload_key(workload, label), time, *([rank] if rank else [])])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


def to_line(measurement: Measurement) -> str:
    """The measurement as one line of JSON, without its end."""
    return json.dumps(measurement.to_mapping(), separators=(",", ":"), allow_nan=False)


class Writer:
    """A records file that is open for appending: opened before the run, so that no run is lost."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(fspath(path)).expanduser()
        self._fd = _open(self.path)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def append(self, measurement: Measurement) -> None:
        """Put one line behind all others, and see that it is on the disk.

        Raises:
            RecordsError: It could not be written; the file is as it was.
        """
        line = to_line(measurement).encode("ascii") + b"\n"
        with _told(self.path), _locked(self._fd):
            size = os.fstat(self._fd).st_size
            try:
                _write(self._fd, _close_last_line(self._fd, size) + line)
                os.fsync(self._fd)
            except OSError:
                with suppress(OSError):  # only what this call wrote goes, under the lock
                    os.ftruncate(self._fd, size)
                raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Alone among the writers of this file: for what several ranks print."""
        with _locked(self._fd):
            yield


def append(path: str | PathLike[str], measurement: Measurement) -> None:
    """Append one measurement; see `Writer`."""
    with Writer(path) as writer:
        writer.append(measurement)


def _open(path: Path) -> int:
    if path.is_symlink() and not path.exists():
        raise RecordsError(f"{path}: is a link to a file that does not exist.")
    with _told(path):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _check_file(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_file(fd: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise RecordsError(f"{path}: is no regular file; measurements are appended to one.")
    if not hasattr(os, "fstatvfs"):
        return
    disk = os.fstatvfs(fd)
    if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
        raise RecordsError(f"{path}: the disk is full; make room before measuring.")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, as one sentence that names the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        code = getattr(error, "errno", None)
        hint = " Make room, then append the line." if code == errno.ENOSPC else ""
        raise RecordsError(f"{path}: cannot be written: {reason}.{hint}") from None


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    """Alone among the writers of this machine, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _close_last_line(fd: int, size: int) -> bytes:
    """What must stand before the next line: nothing, or the end of a line that has none."""
    start = max(0, size - MAX_LINE_BYTES)
    os.lseek(fd, start, os.SEEK_SET)
    tail = _read_all(fd, size - start)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last.strip():
        return b"\n" if last else b""
    return b"\n" if _is_json(last) else UNFINISHED + b"\n"


def _read_all(fd: int, count: int) -> bytes:
    parts = []
    while count > 0:
        part = os.read(fd, count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def read(path: str | PathLike[str], *, tell: Callable[[str], None] = _warn) -> list[Measurement]:
    """All finished measurements of a file, in order; the file is not changed.

    Args:
        path: The file.
        tell: Takes a sentence about each line that a stopped writer left unfinished.

    Raises:
        ConfigError: The file cannot be read, or a line in it is no measurement.
    """
    file = Path(fspath(path)).expanduser()
    out = []
    lines = _read_file(file).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        if line.endswith(UNFINISHED) or (number == len(lines) and not _is_json(line)):
            tell(f"{where}: an unfinished line, of a writer that was stopped, is left out.")
        else:
            out.append(_parse(line, where))
    return out


def read_if_there(
    path: str | PathLike[str], *, tell: Callable[[str], None] = _warn
) -> list[Measurement]:
    """The same; nothing if there is no such file yet."""
    return read(path, tell=tell) if Path(fspath(path)).expanduser().exists() else []


def _read_file(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise ConfigError(f"{file}: is a directory, not a file of measurements.")
        if file.exists() and not file.is_file():
            raise ConfigError(f"{file}: is no regular file.")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES >> 30} GiB.")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file}: cannot be read: {reason}.") from None


def _parse(line: bytes, where: str) -> Measurement:
    if len(line) > MAX_LINE_BYTES:
        raise ConfigError(f"{where}: a line of more than {MAX_LINE_BYTES >> 20} MiB.")
    try:
        return Measurement.from_mapping(json.loads(line, parse_constant=_no_number))
    except MemplanError as error:
        raise ConfigError(f"{where}: {error} Nothing was changed in the file.") from None
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ConfigError(
            f"{where}: no measurement can be read from this line: {reason}. Nothing was changed in "
            "the file; take the line out by hand."
        ) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number that a size can have")
