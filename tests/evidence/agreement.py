"""memplan beside a recorded run: which numbers differ, and memplan's own stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, fields
from typing import Any

import memplan
from memplan.engine import Kernels, Tape, run
from memplan.engine.repeat import Depth
from memplan.hardware import load_device
from memplan.models.config import load_model_config
from memplan.results import Estimate
from memplan.training import train
from memplan.workload import Workload
from tests.evidence.events import Raw
from tests.evidence.measure import COLUMNS

Json = dict[str, Any]

PEAKS = ("requested", "allocated", "reserved")
STEP_PHASES = ("forward", "backward", "optimizer_step", "zero_grad")


def expected(record: Json) -> dict[str, int]:
    """Every number of a record that memplan must give: the peaks, the load, the last step."""
    numbers = dict(zip((f"peak_{k}" for k in PEAKS), record["peak"], strict=True))
    phases = record["phases"] | dict(zip(STEP_PHASES, record["steps"][-1], strict=True))
    for phase, values in phases.items():
        numbers |= {f"{phase}.{c}": v for c, v in zip(COLUMNS, values, strict=True)}
    return numbers


def estimated(estimate: Estimate) -> dict[str, int]:
    """The same numbers of an estimate."""
    numbers = {f"peak_{k}": getattr(estimate, f"peak_{k}_bytes") for k in PEAKS}
    for phase, memory in estimate.phases.items():
        values = astuple(memory)
        numbers |= {f"{phase}.{c}": v for c, v in zip(COLUMNS, values, strict=True)}
    return numbers


def differences(record: Json) -> list[str]:
    """What is off, and by how many bytes: memplan's less the record's."""
    ours = estimated(memplan.estimate(**record["workload"]))
    real = expected(record)
    return [
        f"{key} {ours[key] - value:+,}"
        for key, value in real.items()
        if key in ours and ours[key] != value
    ]


def own_events(record: Json) -> Iterator[Raw]:
    """memplan's events of the record's workload, every layer and every step run."""
    workload, _ = Workload.resolve(record["workload"])
    config = load_model_config(workload.model)
    device = load_device(workload.gpu)
    kernels = Kernels(**{f.name: getattr(device, f.name) for f in fields(Kernels)})
    with run(Tape(), kernels) as tape:
        model = train(workload, config, Depth.unrolled(config.num_hidden_layers), workload.steps)
        events = tape.events[:]  # what dies from here on is not of the run
        del model
    return raw_events(events, tape)


def raw_events(events: list[int], tape: Tape) -> Iterator[Raw]:
    """Events that reach the allocator: a block of no bytes does not."""
    phases = [*tape.phases]
    layers = [*tape.layers]
    phase, layer = 0, "-"
    for i, e in enumerate(events):
        while phase < len(phases) - 1 and phases[phase].end <= i:
            phase += 1
        while layers and layers[0][0] <= i:
            layer = str(layers.pop(0)[1])
        nbytes = e if e >= 0 else events[~e]
        if nbytes:
            number = i if e >= 0 else ~e
            yield Raw(e < 0, number, nbytes, phases[phase].name, f"layer {layer}")
