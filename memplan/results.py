"""What an estimate returns: raw numbers, in bytes, and nothing formatted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SCHEMA = "memplan.estimate/1"
CATEGORIES = (
    "weights",
    "adapters",
    "gradients",
    "optimizer_states",
    "activations",
    "temporaries",
    "workspaces",
    "inputs",
    "allocator_slack",
)


@dataclass(frozen=True, slots=True)
class PeakMoment:
    """Where in the run the allocated peak stands.

    Attributes:
        step: Training step, counted from 1; 0 is before the first.
        phase: ``forward``, ``backward``, ``optimizer_step``, ``zero_grad``, ``eval`` or ``save``.
        module: Qualified name of the module that asked for the block, empty outside of modules.
        op: The operator that asked for it.
    """

    step: int
    phase: str
    module: str
    op: str


@dataclass(frozen=True, slots=True)
class PhaseMemory:
    """Peaks within one phase and what is left at its end. [bytes]"""

    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameter counts. [elements]"""

    total: int
    trainable: int

    @property
    def trainable_fraction(self) -> float:
        """Share of the parameters that train."""
        return self.trainable / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class TradeOffs:
    """What a method costs and gives beside memory.

    Attributes:
        merges: Whether what was trained can be merged into the base, after which inference costs
            nothing more.
        context_tokens: Virtual tokens that take their place in the context. [tokens]
        inference_parameters: What is there beside the base's own, unmerged. [elements]
        inference_flops_share: What a forward computes more, unmerged, as a share of the base's.
        training_flops: Forward and backward of one micro batch. [FLOPs]
        training_flops_share: The same, as a share of what full fine-tuning computes.
    """

    merges: bool
    context_tokens: int
    inference_parameters: int
    inference_flops_share: float
    training_flops: float
    training_flops_share: float


@dataclass(frozen=True, slots=True)
class GpuFit:
    """What a card of this capacity does with the run.

    Attributes:
        name: Catalogue name or the capacity as given.
        capacity_bytes: Memory of the card as CUDA reports it. [bytes]
        context_bytes: What the CUDA context takes of it. [bytes]
        fits: Whether the simulated allocator of that card gets through.
        headroom_bytes: Capacity less context less what the allocator held at its fullest;
            negative when it does not fit: by how much an unlimited run exceeds it. [bytes]
        out_of_memory: Where the run stops when it does not fit.
    """

    name: str
    capacity_bytes: int
    context_bytes: int
    fits: bool
    headroom_bytes: int
    out_of_memory: PeakMoment | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far the number can be trusted: ``exact``, ``modelled``, ``assumed`` or ``virtual``."""

    level: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeakDetail:
    """Where the peak stands, and the bytes of each category at that one moment. [bytes]"""

    peak: PeakMoment
    breakdown_at_peak: Mapping[str, int]


class Deferred(Generic[T]):
    """A detail that is worked out when it is first asked for, as it takes a run of its own."""

    def __init__(self, work_out: Callable[[], T]) -> None:
        self._work_out = work_out
        self._lock = Lock()
        self._value: T | None = None

    def __call__(self) -> T:
        """The detail, worked out once."""
        with self._lock:
            if self._value is None:
                self._value = self._work_out()
            return self._value


def _untold() -> None:
    """The trade-offs of a run whose FLOPs nobody counted."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory of one training run. All sizes are integers. [bytes]

    Attributes:
        workload: Every key, resolved.
        assumed: Keys that were not given.
        peak_requested_bytes: ``requested_bytes.all.peak`` of ``torch.cuda.memory_stats``.
        peak_allocated_bytes: ``torch.cuda.max_memory_allocated()``.
        peak_reserved_bytes: ``torch.cuda.max_memory_reserved()``.
        device_bytes: Reserved and the CUDA context: what nvidia-smi shows.
        phases: By name; those of the training loop are of the last step.
        parameters: Counts.
        checkpoint_bytes: Tensor data of what training would save.
        gpu: What the card does with it, if one was named.
        evidence: How far this can be trusted.
        warnings: What a user should know.
        detail: Works out ``peak`` and ``breakdown_at_peak``.
        costs: Works out ``trade_offs``.
    """

    workload: Mapping[str, Any]
    assumed: tuple[str, ...]
    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_bytes: int
    phases: Mapping[str, PhaseMemory]
    parameters: Parameters
    checkpoint_bytes: int
    gpu: GpuFit | None
    evidence: Evidence
    detail: Callable[[], PeakDetail] = field(compare=False, repr=False)
    warnings: tuple[str, ...] = ()
    costs: Callable[[], TradeOffs | None] = field(default=_untold, compare=False, repr=False)
    schema: str = field(default=SCHEMA)

    @property
    def peak(self) -> PeakMoment:
        """Where in the run the allocated peak stands."""
        return self.detail().peak

    @property
    def trade_offs(self) -> TradeOffs | None:
        """What the method costs beside memory; the virtual engine counts no FLOPs and has none."""
        return self.costs()

    @property
    def breakdown_at_peak(self) -> Mapping[str, int]:
        """Bytes of each category at the peak; they sum to ``peak_allocated_bytes``. [bytes]"""
        return self.detail().breakdown_at_peak
