"""A recording crosses from one Python to another as JSON and comes back equal."""

from __future__ import annotations

import json

import pytest

from memplan.errors import MemplanError
from memplan.evidence.recording import (
    BlockGroup,
    DeviceFacts,
    OutOfMemory,
    PhaseCounters,
    Recording,
)
from memplan.results import PeakMoment

RECORDING = Recording(
    device=DeviceFacts("NVIDIA A10G", (8, 6), 24 << 30, 23 << 30),
    versions={"torch": "2.14.1"},
    phases=(
        PhaseCounters("load", 0, 90, 95, 99, 10, 12, 14),
        PhaseCounters("forward", 1, 20, 25, 30, 15, 16, 30),
        PhaseCounters("backward", 1, 40, 45, 50, 15, 16, 50),
    ),
    peak=PeakMoment(1, "backward", "lm_head", "MmBackward0"),
    breakdown_at_peak={"weights": 45},
    blocks=(BlockGroup(45, 1, "weights", "", "", ""),),
    out_of_memory=OutOfMemory(1, "backward", "", "", 512, "CUDA out of memory"),
    notes=("a note",),
)


def test_it_comes_back_equal() -> None:
    assert Recording.from_mapping(json.loads(json.dumps(RECORDING.to_mapping()))) == RECORDING


def test_peaks_are_those_of_the_training() -> None:
    peaks = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
    assert [getattr(RECORDING, name) for name in peaks] == [40, 45, 50]
    assert RECORDING.steps == 1


def test_without_training_they_are_those_of_the_load() -> None:
    loaded = Recording(device=RECORDING.device, versions={}, phases=RECORDING.phases[:1])
    assert loaded.peak_allocated_bytes == 95


@pytest.mark.parametrize("values", [{}, {"schema": "memplan.recording/1"}, {"schema": 3}])
def test_what_is_none_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(MemplanError):
        Recording.from_mapping(values)
