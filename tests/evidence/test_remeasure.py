"""A random handful of the recorded runs, measured again on the product's own virtual GPU."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from memplan.evidence.recording import Recording
from tests.evidence.agreement import STEP_PHASES, public_detail
from tests.evidence.measure import COLUMNS
from tests.evidence.record import read_records
from tests.evidence.record_breakdowns import card_of, record_on

Json = dict[str, Any]
HANDFUL = 5
RECORDS = [
    record
    for name in ("parity", "rare")
    for record in read_records(Path(__file__).with_name(f"{name}.jsonl"))
    if record["error"] is None
]


def columns(recording: Recording, step: int) -> dict[str, list[int]]:
    """``COLUMNS`` of each phase of a step; of several micro batches, the last one's."""
    return {
        p.name: [asdict(p)[f"{column}_bytes"] for column in COLUMNS]
        for p in recording.phases
        if p.step == step
    }


@pytest.mark.virtual
@pytest.mark.parametrize("draw", range(HANDFUL))
def test_every_number_is_the_recorded_one_again(draw: int) -> None:
    record = random.SystemRandom().choice(RECORDS)
    again = record_on(card_of(record), record["workload"])
    told = f"{record['name']}: {again.refused} {again.notes}"
    assert columns(again, 0) == record["phases"], told
    for number, step in enumerate(record["steps"], 1):
        assert columns(again, number) == dict(zip(STEP_PHASES, step, strict=True)), told
    assert again.breakdown_at_peak == public_detail(record), told
