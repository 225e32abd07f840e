"""memplan beside a recorded run: which numbers differ, and memplan's own stream of events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Phase
from memplan.engine.repeat import Depth
from memplan.engine.tape import EMPTY_CACHE, PhaseMark, Tape
from memplan.estimate import estimate_run
from memplan.running import Attempt, Run
from memplan.simulation import Simulation, simulate
from memplan.workload import Workload
from tests.evidence.events import Raw
from tests.evidence.measure import COLUMNS

Json = dict[str, Any]

PEAKS = ("requested", "allocated", "reserved")
STEP_PHASES = ("forward", "backward", "optimizer_step", "zero_grad")


def run_of(record: Json) -> Run:
    """The record's workload on the record's card: the same capacity, the same context."""
    workload, _ = Workload.resolve(record["workload"])
    run, card = Run.of(workload), record["device"]
    total, context = card["total_bytes"], card["total_bytes"] - card["free_bytes"]
    return replace(run, device=replace(run.device, capacity_bytes=total, context_bytes=context))


def public_numbers(record: Json) -> tuple[list[int], bool]:
    """The three peaks and whether the card gets through, as ``memplan.estimate`` says."""
    estimate = estimate_run(run_of(record))
    assert estimate.gpu is not None
    peaks = [getattr(estimate, f"peak_{kind}_bytes") for kind in PEAKS]
    return peaks, estimate.gpu.fits


def simulation_of(record: Json) -> Simulation:
    """The run on the record's card, to its end or to where memory runs out."""
    run = run_of(record)
    card = Allocator(
        capacity_bytes=run.device.capacity_bytes, context_bytes=run.device.context_bytes
    )
    return simulate(run.record(), card)


def differences(record: Json) -> list[str]:
    """What is off, and by how many bytes: memplan's less the record's.

    Of a run that runs out of memory, the peaks are those that it got to: of the training, or of
    what came before if that is where it stopped.
    """
    simulation = simulation_of(record)
    if simulation.fits is not (record["error"] is None):
        return ["it fits" if simulation.fits else "it does not fit"]
    phases = simulation.training or list(simulation.before)
    peaks = [max(getattr(p, f"peak_{kind}_bytes") for p in phases) for kind in PEAKS]
    off = unequal("run", [f"peak_{kind}" for kind in PEAKS], peaks, record["peak"])
    before = numbers(simulation.before)
    for name, real in record["phases"].items():
        off += unequal(name, COLUMNS, before[name], real)
    for step, (done, recorded) in enumerate(zip(simulation.steps, record["steps"], strict=False)):
        ours = numbers(done)
        for name, real in zip(STEP_PHASES, recorded, strict=True):
            off += unequal(f"step {step} {name}", COLUMNS, ours[name], real)
    return off


def unequal(
    where: str, names: Iterable[str], ours: Iterable[int], real: Iterable[int]
) -> list[str]:
    """A line for each number that differs."""
    return [
        f"{where} {name} {a - b:+,}" for name, a, b in zip(names, ours, real, strict=True) if a != b
    ]


def numbers(phases: Iterable[Phase]) -> dict[str, list[int]]:
    """``COLUMNS`` of each phase by name; of several micro batches, the last one's."""
    return {
        phase.key.name: [getattr(phase, f"{column}_bytes") for column in COLUMNS]
        for phase in phases
        if isinstance(phase.key, PhaseMark)
    }


def own_events(record: Json) -> Iterator[Raw]:
    """memplan's events of the record's workload, every layer and every step run."""
    workload, _ = Workload.resolve(record["workload"])
    run, tape = Run.of(workload), Tape()
    layers = Depth.unrolled(run.config.num_hidden_layers)
    everything = Attempt(layers, workload.steps, workload.gradient_accumulation_steps)
    model = run.play(tape, workload, everything)
    del model
    marks = [mark for mark in tape.phases if mark.name != EMPTY_CACHE]
    layer_of = dict(tape.layers)
    phase, layer = 0, "-"
    for i, e in enumerate(tape.events):
        while phase < len(marks) - 1 and marks[phase].end <= i:
            phase += 1
        layer = str(layer_of.get(i, layer))
        nbytes = e if e >= 0 else tape.events[~e]
        if nbytes:  # a block of no bytes does not reach the allocator
            yield Raw(e < 0, i if e >= 0 else ~e, nbytes, marks[phase].name, f"layer {layer}")


def public_detail(record: Json) -> dict[str, int]:
    """The breakdown at the peak, as ``memplan.estimate`` says."""
    return dict(estimate_run(run_of(record)).breakdown_at_peak)
