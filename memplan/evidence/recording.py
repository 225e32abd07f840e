"""What torch's allocator counted in one run: the one form that every way of measuring gives.

Made in the process that has torch, on a real or on the virtual GPU; read by what reports it. Plain
numbers and text, so that it crosses from one Python to another as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from memplan.errors import MemplanError
from memplan.results import PeakMoment

SCHEMA = "memplan.recording/1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device, as torch sees it.

    Attributes:
        name: Name that CUDA reports.
        capability: (major, minor).
        total_bytes: Its memory. [bytes]
        free_bytes: What was free of it once the CUDA context stood. [bytes]
    """

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class PhaseCounters:
    """torch's counters at the end of a phase; the peaks are those within it.

    Attributes:
        name: ``load``, ``adapter``, ``optimizer_init``, ``forward``, ``backward``,
            ``optimizer_step``, ``zero_grad``, ``eval``, ``save`` or ``other``.
        step: Counted from 1; 0 is before the training.
        peak_requested_bytes: Within the phase. [bytes]
        peak_allocated_bytes: Within the phase. [bytes]
        peak_reserved_bytes: Within the phase. [bytes]
        requested_bytes: At its end. [bytes]
        allocated_bytes: At its end. [bytes]
        reserved_bytes: At its end. [bytes]
    """

    name: str
    step: int
    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks that stood at the peak and came from one place.

    Attributes:
        nbytes: What was asked for, all together. [bytes]
        count: How many they are.
        category: One of ``results.CATEGORIES``.
        module: Qualified name of the module that asked, empty outside of modules.
        op: The operator that asked.
        line: The line of Python that asked, ``file.py:12 function``; empty in autograd's thread.
    """

    nbytes: int
    count: int
    category: str
    module: str
    op: str
    line: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """Where a run stopped for want of memory.

    Attributes:
        step: Counted from 1; 0 is before the training.
        phase: Name of the phase.
        module: Qualified name of the module, if one was running.
        op: The operator that asked.
        requested_bytes: What it asked for. [bytes]
        message: torch's own message.
    """

    step: int
    phase: str
    module: str
    op: str
    requested_bytes: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run as torch's allocator counted it.

    Attributes:
        device: The device.
        versions: Of the libraries that decide the numbers.
        phases: In order; of several micro batches, each one's.
        peak: Where the allocated peak of the training stands, if the history was kept.
        breakdown_at_peak: Bytes of each category at that moment. [bytes]
        blocks: What stood there, the largest groups first.
        out_of_memory: Where the run stopped, if it did; then ``peak`` and what belongs to it are of
            that moment.
        refused: What a library said when it refused the run.
        total_parameters: Of the trained model. [elements]
        trainable_parameters: Those that train. [elements]
        checkpoint_bytes: Tensor data of what training would save. [bytes]
        device_used_bytes: The most that the driver saw in use, if it was asked. [bytes]
        notes: What a reader should know.
    """

    device: DeviceFacts
    versions: Mapping[str, str]
    phases: tuple[PhaseCounters, ...] = ()
    peak: PeakMoment | None = None
    breakdown_at_peak: Mapping[str, int] | None = None
    blocks: tuple[BlockGroup, ...] = ()
    out_of_memory: OutOfMemory | None = None
    refused: str | None = None
    total_parameters: int = 0
    trainable_parameters: int = 0
    checkpoint_bytes: int = 0
    device_used_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> tuple[PhaseCounters, ...]:
        """The phases that peaks are taken over: of the training, or all where there is none."""
        return tuple(p for p in self.phases if p.step) or self.phases

    @property
    def peak_requested_bytes(self) -> int:
        """Over the training. [bytes]"""
        return max((p.peak_requested_bytes for p in self.training), default=0)

    @property
    def peak_allocated_bytes(self) -> int:
        """Over the training. [bytes]"""
        return max((p.peak_allocated_bytes for p in self.training), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """Over the training. [bytes]"""
        return max((p.peak_reserved_bytes for p in self.training), default=0)

    @property
    def steps(self) -> int:
        """Training steps that were begun."""
        return max((p.step for p in self.phases), default=0)

    def to_mapping(self) -> dict[str, Any]:
        """Plain mappings, lists and numbers, fit for JSON and for `from_mapping`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recording:
        """The recording of such a mapping.

        Raises:
            MemplanError: It is none.
        """
        if values.get("schema") != SCHEMA:
            raise MemplanError(f"no recording of the schema {SCHEMA}: {values.get('schema')!r}.")
        given = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        try:
            given["device"] = _device(given["device"])
            given["phases"] = _several(PhaseCounters, given.get("phases", ()))
            given["blocks"] = _several(BlockGroup, given.get("blocks", ()))
            given["peak"] = _one(PeakMoment, given.get("peak"))
            given["out_of_memory"] = _one(OutOfMemory, given.get("out_of_memory"))
            given["notes"] = tuple(given.get("notes", ()))
            return cls(**given)
        except (KeyError, TypeError, ValueError) as error:
            raise MemplanError(f"a recording that cannot be read: {error}.") from None


def _device(values: Mapping[str, Any]) -> DeviceFacts:
    major, minor = values["capability"]
    return DeviceFacts(**{**values, "capability": (int(major), int(minor))})


def _several(kind: type[T], values: Iterable[Mapping[str, Any]]) -> tuple[T, ...]:
    return tuple(kind(**v) for v in values)


def _one(kind: type[T], values: Mapping[str, Any] | None) -> T | None:
    return None if values is None else kind(**values)
