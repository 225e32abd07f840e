"""The byte engine's breakdown against the virtual engine's, recorded: every category."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.agreement import PEAKS, run_of
from tests.evidence.agreement import public_detail as breakdown

Json = dict[str, Any]
PATH = Path(__file__).parent / "evidence" / "breakdowns.jsonl"
RECORDS: list[Json] = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_every_category_is_the_recorded_one(record: Json) -> None:
    assert breakdown(record) == record["breakdown"]


@pytest.mark.parametrize("record", RECORDS[::5], ids=lambda record: record["name"])
def test_the_totals_are_the_recorded_ones(record: Json) -> None:
    from memplan.estimate import estimate_run

    estimate = estimate_run(run_of(record))
    assert [getattr(estimate, f"peak_{kind}_bytes") for kind in PEAKS] == record["peak"]


def test_there_are_as_many_as_it_takes() -> None:
    assert len(RECORDS) >= 50
