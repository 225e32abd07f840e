"""Every allocation and every free, in order, against recorded runs on the virtual GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.record import read_records
from tests.models.streams import Json, own, summary

RECORDS = read_records(Path(__file__).with_name("streams.jsonl"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_events_are_the_recorded_ones(record: Json) -> None:
    assert summary(own(record)) == record["streams"]


def test_the_streams_cover_families_and_methods() -> None:
    workloads = [record["workload"] for record in RECORDS]
    assert len(workloads) >= 200
    assert {w["model"]["model_type"] for w in workloads} == {"llama", "mistral", "qwen2", "qwen3"}
    assert {w.get("method", "full") for w in workloads} == {
        *("full", "frozen", "lora", "prompt_tuning"),
    }
