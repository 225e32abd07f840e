"""Record the event streams of workloads that cover the models' and methods' features.

    python tests/models/record_streams.py --python PYTHON [--only NAME ...] < workloads.jsonl

Reads one ``{"name": ..., "workload": ...}`` a line (the lines of ``streams.jsonl`` will do),
measures each as ``tests/evidence/record.py`` does, and writes it again with ``streams.summary`` of
every event of the allocator. ``label`` says what it was measured on: the virtual GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.evidence.record import device_environment, measured
from tests.models.streams import Json, raw, summary


def recorded(records: Iterable[Json], python: str) -> Iterator[Json]:
    """The records with what their streams were; runs of one environment share their imports."""
    for _, group in groupby(records, key=device_environment):
        with tempfile.TemporaryDirectory() as folder:
            for i, result in enumerate(measured(group, python, Path(folder))):
                events = pickle.loads((Path(folder) / f"{i}.pkl").read_bytes())
                kept = {key: result[key] for key in ("name", "workload", "label")}
                yield kept | {"streams": summary(raw(events))}


def main() -> None:
    """Measure what stands on standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = os.environ.get("MEMPLAN_VIRTUAL_PYTHON", sys.executable)
    parser.add_argument("--python", default=default)
    parser.add_argument("--only", nargs="+", help="names")
    options = parser.parse_args()
    records = [json.loads(line) for line in sys.stdin]
    wanted = [r for r in records if options.only is None or r["name"] in options.only]
    wanted.sort(key=lambda r: sorted(device_environment(r).items()))
    for record in recorded(wanted, options.python):
        sys.stdout.write(json.dumps(record, separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
