"""memplan beside a recorded run: which numbers differ, and memplan's own stream of events."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import memplan
from memplan.results import Estimate
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
