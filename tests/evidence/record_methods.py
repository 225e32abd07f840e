"""Run workloads of files on the virtual GPU, and append what was counted, one JSON line a run.

    python tests/evidence/record_methods.py WORKLOADS.jsonl tests/evidence/methods/NAME.jsonl

A file holds one workload a line; a run's name is NAME and the line's number, and one that is there
already is not run again. Runs that a library refuses or that run out of memory leave none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.evidence.recording import Recording
from tests.evidence.fleet import record_all, record_of

Json = dict[str, Any]


def named(files: list[Path], name: str) -> Iterator[tuple[str, Json]]:
    """(name, workload) of every line."""
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            yield f"{name}-{number}", json.loads(line)


def line_of(name: str, keys: Json, recording: Recording) -> Json:
    """The record of a run."""
    return {
        "name": name,
        "label": "virtual",
        **record_of(keys, recording),
        "versions": dict(recording.versions),
        "peak": [
            recording.peak_requested_bytes,
            recording.peak_allocated_bytes,
            recording.peak_reserved_bytes,
        ],
        "breakdown": dict(recording.breakdown_at_peak or {}),
        "parameters": [recording.total_parameters, recording.trainable_parameters],
        "checkpoint_bytes": recording.checkpoint_bytes,
    }


def main() -> None:
    """Record what the files of the command line hold."""
    *files, out = map(Path, sys.argv[1:])
    there = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    known = {json.loads(line)["name"] for line in there}
    wanted = [(name, keys) for name, keys in named(files, out.stem) if name not in known]
    recordings = record_all(keys for _, keys in wanted)
    for (name, keys), recording in zip(wanted, recordings, strict=True):
        if isinstance(recording, str) or recording.refused or recording.out_of_memory:
            sys.stderr.write(f"{name}: no peak: {getattr(recording, 'refused', recording)}\n")
            continue
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line_of(name, keys, recording), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
