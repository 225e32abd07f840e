"""The byte engine against the virtual engine, recorded: totals, categories, counts, checkpoints.

A default run takes one record in eight of each file; ``pytest -m slow`` takes the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.estimate import estimate_run
from tests.evidence.agreement import PEAKS, run_of

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "evidence"
ONE_IN = 8


def read(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BREAKDOWNS = read(FOLDER / "breakdowns.jsonl")
METHODS = {path.stem: read(path) for path in sorted((FOLDER / "methods").glob("*.jsonl"))}


def parameters() -> list[Any]:
    """Every record; most of them slow."""
    return [
        pytest.param(record, id=record["name"], marks=pytest.mark.slow if i % ONE_IN else ())
        for records in (BREAKDOWNS, *METHODS.values())
        for i, record in enumerate(records)
    ]


@pytest.mark.parametrize("record", parameters())
def test_every_number_is_the_recorded_one(record: Json) -> None:
    estimate = estimate_run(run_of(record))
    assert [getattr(estimate, f"peak_{kind}_bytes") for kind in PEAKS] == record["peak"]
    assert dict(estimate.breakdown_at_peak) == record["breakdown"]
    if "parameters" in record:
        counts = estimate.parameters
        assert [counts.total, counts.trainable] == record["parameters"]
        assert estimate.checkpoint_bytes == record["checkpoint_bytes"]


def test_there_are_as_many_as_it_takes() -> None:
    assert len(BREAKDOWNS) >= 50
    assert sum(map(len, METHODS.values())) >= 300
    drawn = {json.dumps(r["workload"], sort_keys=True) for rs in METHODS.values() for r in rs}
    assert len(drawn) >= 300  # no run counts twice
