"""Quantised runs, and plain ones loaded from a checkpoint, as the virtual GPU recorded them.

torch 2.14.1, transformers 5.18.0, peft 0.21.2, bitsandbytes 0.50.2, accelerate 1.15.0. Of each:
peaks over the training steps, and of loading, adapting and making the optimizer the peaks and what
stands at the end. [bytes]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import memplan

Json = dict[str, Any]

KINDS = ("requested_bytes", "allocated_bytes", "reserved_bytes")
COLUMNS = (*(f"peak_{kind}" for kind in KINDS), *KINDS)
RECORDS = [
    json.loads(line) for line in (Path(__file__).parent / "recorded.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("record", RECORDS, ids=[record["name"] for record in RECORDS])
def test_peaks_and_phases_are_the_recorded_ones(record: Json) -> None:
    e = memplan.estimate(**{"loop": "plain", **record["workload"]})
    assert [getattr(e, f"peak_{kind}") for kind in KINDS] == record["peak"]
    ours = {name: [getattr(e.phases[name], c) for c in COLUMNS] for name in record["phases"]}
    assert ours == record["phases"]
