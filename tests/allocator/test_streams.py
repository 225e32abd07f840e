"""Streams recorded with torch's own counters: allocated and reserved equal at every event."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from memplan.allocator import EMPTY_CACHE, replay
from tests.allocator.streams import (
    STREAMS,
    WAYS,
    Way,
    allocator_of,
    read_record,
    recorded_counters,
    simulated,
)

RECORDS = sorted(STREAMS.glob("*.json.gz"))


@pytest.fixture(params=RECORDS, ids=lambda path: path.name.removesuffix(".json.gz"))
def path(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.mark.parametrize("way", WAYS)
def test_allocated_and_reserved_are_torchs_at_every_event(path: Path, way: Way) -> None:
    record = read_record(path)
    counters = [counters for counters, _ in simulated(record, way)]
    assert counters == recorded_counters(record)


def test_memory_runs_out_where_it_did_and_with_torchs_figures(path: Path) -> None:
    record = read_record(path)
    errors = {
        number: error
        for number, (_, error) in enumerate(simulated(record, WAYS[0]))
        if error is not None
    }
    assert list(errors) == [failure["event"] for failure in record["failures"]]
    for failure in record["failures"]:
        error = errors[failure["event"]]
        assert error.free_bytes is not None
        for figure, words in (
            (error.tried_bytes, "Tried to allocate {}. GPU"),
            (error.capacity_bytes, "total capacity of {} of which"),
            (error.free_bytes, "of which {} is free"),
            (error.allocated_bytes, "memory {} is allocated by PyTorch"),
            (error.reserved_bytes - error.allocated_bytes, "and {} is reserved by PyTorch"),
        ):
            assert words.format(as_torch_writes(figure)) in failure["message"]


def as_torch_writes(nbytes: int | None) -> str:
    """Source: pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``format_size``."""
    assert nbytes is not None
    for unit, shift in (("bytes", 0), ("KiB", 10), ("MiB", 20)):
        if nbytes <= 1024 << shift:
            return f"{nbytes} bytes" if shift == 0 else f"{nbytes / (1 << shift):.2f} {unit}"
    return f"{nbytes / (1 << 30):.2f} GiB"


def test_peaks_of_each_phase_are_those_of_the_training_run_itself(path: Path) -> None:
    record = read_record(path)
    if "phases" not in record:
        pytest.skip("a random stream has no phases")
    marks = [(place, name) for place, name, _ in record["phases"]]
    marks += [(place, EMPTY_CACHE) for place in record["flushes"]]
    result = replay(allocator_of(record), record["events"], sorted(marks, key=lambda m: m[0]))
    assert len(record["phases"]) >= 3
    for phase, (_, name, columns) in zip(result.phases, record["phases"], strict=True):
        assert phase.key == name
        assert columns == [
            phase.peak_requested_bytes,
            phase.peak_allocated_bytes,
            phase.peak_reserved_bytes,
            phase.requested_bytes,
            phase.allocated_bytes,
            phase.reserved_bytes,
        ]


def test_the_records_cover_what_there_is() -> None:
    records = [read_record(path) for path in RECORDS]
    assert {record["label"] for record in records} == {"virtual"}
    assert {"full", "lora"} <= {
        r["workload"].get("method", "full") for r in records if "workload" in r
    }
    assert any(record["failures"] for record in records)
    assert any(min(record["reserved"]) < 0 < max(record["reserved"]) for record in records)
    confs = " ".join(record["conf"] for record in records)
    for option in ("expandable_segments", "max_split_size_mb", "roundup", "garbage_collection"):
        assert option in confs


def test_the_peak_event_is_where_the_counters_first_reached_their_maximum(path: Path) -> None:
    record = read_record(path)
    if record["failures"] or record["flushes"]:
        pytest.skip("counters after an error are not of one replay")
    counters = list(accumulate(record["allocated"]))
    result = replay(allocator_of(record), record["events"], [(len(counters), "all")])
    assert result.peak_phase.peak_event == counters.index(max(counters))
    assert result.peak_allocated_bytes == max(counters)
