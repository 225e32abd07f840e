"""memplan's optimizer steps against recorded ones, event by event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.optimizers import OPTIMIZERS
from tests.optimizers.steps import Case, events_of, settled, steps

RECORDS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "recorded_steps.json").read_text(encoding="utf-8")
)["cases"]
RECORDED = [r for r in RECORDS if r["error"] is None]
REFUSED = [r for r in RECORDS if r["error"] is not None]


def name(record: dict[str, Any]) -> str:
    return f"{record['seed']}-{record['optimizer']}"


@pytest.mark.parametrize("record", RECORDED, ids=name)
def test_every_event_is_the_recorded_one(record: dict[str, Any]) -> None:
    case = Case.from_json(record)
    assert settled(events_of(lambda: steps(case))) == settled(record["events"])


@pytest.mark.parametrize("record", REFUSED, ids=name)
def test_what_torch_refuses_is_refused(record: dict[str, Any]) -> None:
    case = Case.from_json(record)
    with pytest.raises(ConfigError):
        events_of(lambda: steps(case))


def test_records_cover_every_optimizer_with_and_without_clipping_and_scaling() -> None:
    seen = {(r["optimizer"], r["clips"], r["scales"]) for r in RECORDED}
    assert len(seen) >= 70
    assert {name for name, _, _ in seen} >= set(OPTIMIZERS) - {"apollo_adamw_layerwise"}
