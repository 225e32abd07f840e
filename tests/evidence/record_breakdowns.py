"""Run random workloads on the virtual engine and keep what stood at the peak, by category.

    python tests/evidence/record_breakdowns.py 9100:9150 tests/evidence/breakdowns.jsonl

One JSON line a run: its name, workload, device, versions, the three peaks and the breakdown. Runs
that a library refuses or that run out of memory leave none. Lines are appended as they come.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.errors import MemplanError
from memplan.evidence.recording import Recording
from memplan.evidence.runner.launch import run
from memplan.evidence.virtual.environment import require
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import Device, load_device
from memplan.workload import Workload
from tests.evidence.record import seed_range, with_config
from tests.evidence.workloads import draw

Json = dict[str, Any]


def record_on(device: Device, workload: Json) -> Recording:
    """What the virtual GPU counts of a workload on a card."""
    environment = require()
    padding = workload.get("attention_mask") == "padding"
    return run(
        Workload.resolve(workload)[0].to_dict(),
        with_config(workload)["model"],
        python=environment.python,
        environment=environment_variables(environment, device, padding=padding),
    )


def card_of(record: Json) -> Device:
    """The card of a record: the catalogue's, with the record's memory."""
    card = record["device"]
    return replace(
        load_device(record["workload"]["gpu"]),
        title=card["name"],
        capacity_bytes=card["total_bytes"],
        context_bytes=card["total_bytes"] - card["free_bytes"],
    )


def line_of(seed: int) -> Json | None:
    """The record of a seed; none if the run has no peak."""
    workload = draw(seed)
    recording = record_on(load_device(workload["gpu"]), workload)
    if recording.refused or recording.out_of_memory:
        return None
    device = recording.device
    return {
        "name": f"s{seed}",
        "label": "virtual",
        "workload": workload,
        "device": {
            "name": device.name,
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes,
        },
        "versions": dict(recording.versions),
        "peak": [
            recording.peak_requested_bytes,
            recording.peak_allocated_bytes,
            recording.peak_reserved_bytes,
        ],
        "breakdown": dict(recording.breakdown_at_peak or {}),
    }


def main() -> None:
    """Record the seeds of the command line."""
    seeds, out = seed_range(sys.argv[1]), Path(sys.argv[2])
    for seed in seeds:
        try:
            line = line_of(seed)
        except MemplanError as error:
            sys.stderr.write(f"s{seed}: {error}\n")
            continue
        if line is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
