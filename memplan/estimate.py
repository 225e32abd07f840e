"""The main job: the memory of one training run.

The run is played on a tape, its events are replayed through the allocator, and what stands at the
peak is looked up only when it is asked for. Nothing here knows of models, methods or kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Phase
from memplan.attribution import Attribution, describe_peak
from memplan.counting import checkpoint_bytes, count_parameters
from memplan.engine.tape import PhaseMark
from memplan.quantized_bases import is_old_bitsandbytes
from memplan.results import (
    Deferred,
    Estimate,
    Evidence,
    GpuFit,
    PeakDetail,
    PeakMoment,
    PhaseMemory,
)
from memplan.running import Recording, Run
from memplan.simulation import Simulation, simulate
from memplan.trade_offs import trade_offs
from memplan.workload import Workload, rank_warnings


def estimate(workload: Workload | None = None, /, **keys: Any) -> Estimate:
    """The peak GPU memory of a training run, byte for byte what PyTorch's allocator would report.

    Args:
        workload: What is to be run, or its keys.
        keys: See ``Workload``.

    Raises:
        ConfigError: A key, a value or a file cannot be used.

    Example:
        >>> e = estimate(model="7b", method="lora", rank=8, gpu="a10g")
        >>> e.parameters.trainable, e.gpu.fits
        (4194304, False)
    """
    assumed: tuple[str, ...] = ()
    if workload is None:
        workload, assumed = Workload.resolve(keys)
    elif keys:
        workload = replace(workload, **keys)
    return estimate_run(Run.of(workload), assumed)


def estimate_run(run: Run, assumed: tuple[str, ...] = ()) -> Estimate:
    """The estimate of a workload on a device.

    With a capacity, the numbers are those of the run on that card; if it does not get through, they
    are those that it would need.
    """
    recording = run.record()
    simulation, out_of_memory = on_card(run, recording)
    peak = simulation.peak_phase
    return Estimate(
        workload=run.resolved(),
        assumed=(*assumed, *(f"model.{key}" for key in run.config.assumed)),
        peak_requested_bytes=max(p.peak_requested_bytes for p in simulation.training),
        peak_allocated_bytes=peak.peak_allocated_bytes,
        peak_reserved_bytes=max(p.peak_reserved_bytes for p in simulation.training),
        device_bytes=simulation.peak_reserved_bytes + run.device.context_bytes,
        phases=phases(simulation),
        parameters=count_parameters(recording.model),
        checkpoint_bytes=checkpoint_bytes(recording.model, run.workload.method),
        gpu=gpu_fit(run, simulation, out_of_memory),
        evidence=evidence(run),
        detail=Deferred(lambda: peak_detail(run, recording, peak, peak in simulation.after)),
        costs=Deferred(lambda: trade_offs(run, recording.model)),
        warnings=rank_warnings(run.workload, run.config.linear_shapes()),
    )


def on_card(run: Run, recording: Recording) -> tuple[Simulation, PeakMoment | None]:
    """The run on its card and where it stops; where it does, the run on an endless card."""
    device = run.device
    limited = simulate(
        recording,
        Allocator(capacity_bytes=device.capacity_bytes, context_bytes=device.context_bytes),
    )
    if limited.fits:
        return limited, None
    return simulate(recording, Allocator()), stop_moment(limited)


def stop_moment(simulation: Simulation) -> PeakMoment:
    """The step and phase in which memory runs out."""
    last = simulation.replays[-1].phases[-1]
    assert isinstance(last.key, PhaseMark)
    return PeakMoment(last.key.step + 1, last.key.name, "", "")


def phases(simulation: Simulation) -> Mapping[str, PhaseMemory]:
    """Every phase by name; of several with one name, the last."""
    out: dict[str, PhaseMemory] = {}
    for p in (*simulation.before, *simulation.steps[simulation.last], *simulation.after):
        assert isinstance(p.key, PhaseMark)
        out[p.key.name] = PhaseMemory(
            p.peak_requested_bytes,
            p.peak_allocated_bytes,
            p.peak_reserved_bytes,
            p.requested_bytes,
            p.allocated_bytes,
            p.reserved_bytes,
        )
    return out


def gpu_fit(run: Run, simulation: Simulation, stop: PeakMoment | None) -> GpuFit | None:
    """What the card does with the run, if there is one."""
    device = run.device
    if device.capacity_bytes is None:
        return None
    room = device.capacity_bytes - device.context_bytes
    return GpuFit(
        name=device.name,
        capacity_bytes=device.capacity_bytes,
        context_bytes=device.context_bytes,
        fits=stop is None,
        headroom_bytes=room - simulation.peak_reserved_bytes,
        out_of_memory=stop,
    )


HELD = frozenset({(8, 0), (8, 6), (8, 9), (9, 0)})
"""Compute capabilities on which recorded runs were equal to the byte (``tests/evidence``)."""


NOTES = {
    "muon": ("muon: AdamW (foreach) updates embeddings, lm_head and what is no matrix",),
    "grokadamw": ("grokadamw: its states are on the host, which no total here counts",),
    "apollo_adamw": ("apollo_adamw: norms are taken to grow; where none does, a number is less",),
}
"""What to know of an optimizer."""


def evidence(run: Run) -> Evidence:
    """How far the numbers can be trusted, and what was assumed."""
    capability = run.device.compute_capability
    notes = [f"assumed: {run.device.assumed}"] if run.device.assumed else []
    if capability >= (9, 0) and run.workload.attention == "sdpa":
        notes.append("cuDNN's attention, which torch may prefer here, is taken as switched off")
    if run.workload.optimizer.startswith("paged_"):
        notes.append("large optimizer states are in managed memory, which no total here counts")
    notes += NOTES.get(run.workload.optimizer, ())
    reasons = [*why_modelled(run.workload.quantization, capability), *why_old(run.workload)]
    return Evidence("modelled" if reasons else "exact", (*notes, *reasons))


def why_modelled(quantization: str, capability: tuple[int, int]) -> Iterator[str]:
    """What keeps an estimate from being exact."""
    if quantization == "int8":
        yield "int8: activations are taken to have no outlier columns; their values decide that"
    if quantization.startswith("hqq"):
        yield "hqq: while loading, the search for zero points is taken to turn once; values decide"
    if capability not in HELD:
        name = ".".join(map(str, capability))
        yield f"kernels of compute capability {name} are taken from sources; no run is recorded"


def why_old(workload: Workload) -> Iterator[str]:
    """What an old release keeps an estimate from being."""
    if is_old_bitsandbytes(workload) and workload.is_quantized:
        version = workload.versions["bitsandbytes"]
        yield (
            f"4-bit layers of bitsandbytes {version} are taken from its source, under today's "
            "other libraries; no run is recorded"
        )


def peak_detail(run: Run, recording: Recording, peak: Phase, is_after: bool) -> PeakDetail:
    """Play the run again, annotated, and look at the moment of the peak.

    Args:
        run: The run.
        recording: What it left.
        peak: The phase of the peak.
        is_after: Whether that is after the last step.
    """
    tape, stream = run.annotate(recording.attempt)
    assert isinstance(peak.key, PhaseMark)
    event = peak.peak_event if is_after else recording.steps.origin(peak.peak_event)
    attribution = Attribution(tape, stream)
    return describe_peak(attribution, event, peak.key, peak.peak_allocated_bytes)
