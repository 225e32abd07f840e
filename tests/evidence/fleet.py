"""Workloads beside what the virtual GPU records of them, many in a minute.

    python tests/evidence/fleet.py 31000:31020          # seeds of tests/evidence/workloads.py
    python tests/evidence/fleet.py '{"model": ..., "gpu": "a10g", ...}' FILE.jsonl

Prints one line a workload: ``equal``, or what is off. FILE holds one workload a line. The virtual
GPU is the one that ``memplan rehearse --setup`` made (``MEMPLAN_HOME``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.errors import MemplanError
from memplan.estimate import estimate_run
from memplan.evidence.recording import Recording
from memplan.evidence.virtual.adapters import environment_for
from memplan.evidence.virtual.environment import require
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import load_device
from memplan.models.config import load_raw_config
from memplan.results import Estimate
from memplan.workload import Workload
from tests.evidence.agreement import run_of

Json = dict[str, Any]

SERVER = Path(__file__).with_name("fleet_server.py")
PEAKS = ("requested", "allocated", "reserved")


def jobs_of(workloads: Iterable[Json]) -> Iterator[Json]:
    """What the server is told of each workload."""
    base = require()
    for keys in workloads:
        workload, _ = Workload.resolve(keys)
        environment = environment_for(workload.method, base)
        padding = workload.attention_mask == "padding"
        device = load_device(workload.gpu)
        yield {
            "workload": workload.to_dict(),
            "model_config": dict(load_raw_config(workload.model).keys),
            "history": True,
            "python": str(environment.python),
            "environment": environment_variables(environment, device, padding=padding),
        }


def record_all(workloads: Iterable[Json]) -> Iterator[Recording | str]:
    """The recording of each workload, or the traceback of its crash, in order, as they come."""
    for python, jobs in groupby(jobs_of(workloads), key=itemgetter("python")):
        yield from record_with(python, list(jobs))


def record_with(python: str, jobs: list[Json]) -> Iterator[Recording | str]:
    """The same of jobs that one Python runs."""
    with subprocess.Popen(
        [str(python), str(SERVER)],
        env=os.environ | jobs[0]["environment"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("FLEET_STDERR") else subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for job in jobs:
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            crashed = answer.get("crashed")
            yield crashed if crashed is not None else Recording.from_mapping(answer)


def record_of(keys: Json, recording: Recording) -> Json:
    """A workload and its card, as ``agreement`` reads them."""
    device = recording.device
    card = {"total_bytes": device.total_bytes, "free_bytes": device.free_bytes}
    return {"workload": keys, "device": card}


def differences(keys: Json, recording: Recording) -> list[str]:
    """What the byte engine says otherwise: totals, phases, breakdown, parameters, checkpoint."""
    estimate = estimate_run(run_of(record_of(keys, recording)))
    if recording.out_of_memory is not None:
        assert estimate.gpu is not None
        return ["it does not fit"] if estimate.gpu.fits else []
    return list(_unequal(estimate, recording))


def _unequal(estimate: Estimate, recording: Recording) -> Iterator[str]:
    for kind in PEAKS:
        name = f"peak_{kind}_bytes"
        yield from _line(name, getattr(estimate, name), getattr(recording, name))
    last = {p.name: p for p in recording.phases if p.step in (0, recording.steps)}
    for name, memory in estimate.phases.items():
        for key, value in asdict(memory).items():
            yield from _line(f"{name} {key}", value, getattr(last[name], key))
    for name, value in estimate.breakdown_at_peak.items():
        yield from _line(f"breakdown {name}", value, (recording.breakdown_at_peak or {})[name])
    yield from _line("parameters", estimate.parameters.total, recording.total_parameters)
    yield from _line("trainable", estimate.parameters.trainable, recording.trainable_parameters)
    yield from _line("checkpoint", estimate.checkpoint_bytes, recording.checkpoint_bytes)


def _line(name: str, ours: int, real: int) -> Iterator[str]:
    if ours != real:
        yield f"{name} {ours - real:+,} (of {real:,})"


def workloads_of(arguments: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """(name, workload) of seeds, of JSON text and of files."""
    from tests.evidence.workloads import draw

    for text in arguments:
        if text.startswith("{"):
            yield text, json.loads(text)
        elif Path(text).is_file():
            for i, line in enumerate(Path(text).read_text(encoding="utf-8").splitlines()):
                yield f"{text}:{i + 1}", json.loads(line)
        else:
            first, _, stop = text.partition(":")
            for seed in range(int(first), int(stop or int(first) + 1)):
                yield f"seed {seed}", draw(seed)


def verdict(keys: Json, recording: Recording | str) -> str:
    """One line on a workload."""
    if isinstance(recording, str):
        return f"CRASHED {recording.strip().splitlines()[-1]}"
    if recording.refused:
        return f"refused: {recording.refused}"
    try:
        off = differences(keys, recording)
    except MemplanError as error:
        return f"byte engine: {error}"
    return "OFF " + "; ".join(off) if off else "equal"


def main() -> None:
    """Compare what the command line names."""
    named = list(workloads_of(sys.argv[1:]))
    for (name, keys), recording in zip(named, record_all(w for _, w in named), strict=True):
        sys.stdout.write(f"{name}: {verdict(keys, recording)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
