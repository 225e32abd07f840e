from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan import estimate
from memplan.errors import ConfigError
from memplan.evidence.metamath import INFERRED_FROM
from memplan.evidence.published import load_records
from memplan.evidence.recording import OutOfMemory, PhaseCounters
from memplan.evidence.records import Measurement
from memplan.evidence.validate import EXPLAINED, Validation, matching, validate_records
from memplan.evidence.verdicts import NOT_COUNTED, NOT_COVERED, OFF, OK, Tolerance, relative_error
from memplan.results import Estimate
from memplan.workload import Workload
from tests.evidence.measurements import make_measurement

WORKLOAD = Workload(model="qwen2.5-0.5b", method="lora", seq_len=64, gpu="a10g")


@pytest.fixture(scope="module")
def published() -> Validation:
    return validate_records(load_records())


def test_every_published_row_is_listed(published: Validation) -> None:
    assert len(published.rows) == 501


def test_published_rows_are_within_the_tolerance(published: Validation) -> None:
    assert published.core is not None
    assert published.passed, published.problems
    assert published.core.count > 100
    assert published.core.median <= 0.005
    assert published.wrong_verdicts == ()


def test_rows_past_three_percent_are_explained_one_by_one(published: Validation) -> None:
    far = {row.id for row in published.rows if row.verdict == OFF}
    assert far == set(EXPLAINED)
    assert all(abs(row.error or 0) > 0.03 for row in published.rows if row.verdict == OFF)


def test_rows_that_a_length_was_inferred_from_are_not_counted(published: Validation) -> None:
    inferred = [row for row in published.rows if row.id in INFERRED_FROM]
    assert [row.verdict for row in inferred] == [NOT_COUNTED, NOT_COUNTED]
    assert not any(row.counts for row in inferred)


def test_inferred_lengths_are_those_nearest_to_their_rows(published: Validation) -> None:
    for row in published.rows:
        if row.id in INFERRED_FROM:
            assert row.error is not None
            assert abs(row.error) < 0.0005


def test_suspect_rows_are_shown_and_not_counted(published: Validation) -> None:
    suspect = [row for row in published.rows if "suspect" in row.reason]
    assert [row.verdict for row in suspect] == [NOT_COUNTED, NOT_COUNTED]


def test_whatever_is_not_covered_says_why(published: Validation) -> None:
    rows = [row for row in published.rows if row.verdict == NOT_COVERED]
    assert rows
    assert all(row.reason and row.error is None and not row.counts for row in rows)


def test_summaries_are_by_method_model_source_and_metric(published: Validation) -> None:
    by = {summary.by for summary in published.summaries}
    assert by == {"method", "model", "source", "metric", "all"}
    methods = [s for s in published.summaries if s.by == "method"]
    assert published.core is not None
    assert sum(s.count for s in methods) == published.core.count
    assert all(s.median <= s.worst and s.mean <= s.worst for s in published.summaries)


def test_what_was_reserved_is_within_the_same_median(published: Validation) -> None:
    """PEFT's own benchmark: 0.3 % on reserved memory, with one length for all."""
    reserved = next(s for s in published.summaries if (s.by, s.name) == ("metric", "reserved"))
    assert reserved.count > 50
    assert reserved.median <= 0.003


def test_a_lower_tolerance_fails_and_says_which(published: Validation) -> None:
    some = [r for r in load_records() if r.id.startswith("peft-mm-prompt")]
    strict = validate_records(some, tolerance=Tolerance(median=0.001, worst=0.01))
    assert not strict.passed
    assert "median" in strict.problems[0]
    assert "rows are off by more than 1.00%" in strict.problems[1]


@pytest.mark.parametrize(
    ("estimated", "halfwidth", "error"),
    [(110, 0, 0.1), (90, 0, -0.1), (103, 5, 0.0), (90, 5, -0.05)],
)
def test_error_is_counted_from_the_nearer_end_of_the_rounding(
    estimated: int, halfwidth: int, error: float
) -> None:
    assert relative_error(estimated, 100, halfwidth) == pytest.approx(error)


def measured(workload: Workload = WORKLOAD, **more: Any) -> Measurement:
    """A measurement that says exactly what the estimate says."""
    made = estimate(workload)
    item = make_measurement(0)
    recording = replace(item.recording, phases=phases_of(made), out_of_memory=None, refused=None)
    keys = workload.to_dict()
    return replace(item, workload=keys, recording=replace(recording, **more))


def phases_of(made: Estimate) -> tuple[PhaseCounters, ...]:
    before = ("load", "adapter", "optimizer_init")
    phases = [
        PhaseCounters(
            name=name,
            step=int(name not in before),
            **{key: getattr(phase, key) for key in phase.__slots__},
        )
        for name, phase in made.phases.items()
    ]
    peaks = PhaseCounters(
        "other",
        1,
        made.peak_requested_bytes,
        made.peak_allocated_bytes,
        made.peak_reserved_bytes,
        *(0, 0, 0),
    )
    return (peaks, *phases)


def test_a_measurement_gives_a_row_for_each_total_and_each_phase() -> None:
    result = validate_records([measured()])
    assert [row.metric for row in result.rows[:3]] == ["requested", "allocated", "reserved"]
    assert all(row.error == 0 and row.verdict == OK for row in result.rows[:3])
    details = {row.metric for row in result.rows if row.detail}
    assert {"load: after", "backward: peak", "optimizer_step: after"} <= details


def test_a_measurement_that_is_off_fails() -> None:
    item = measured()
    phases = tuple(
        replace(p, peak_reserved_bytes=2 * p.peak_reserved_bytes) for p in item.recording.phases
    )
    off = replace(item, recording=replace(item.recording, phases=phases))
    result = validate_records([off])
    assert [row.verdict for row in result.rows[:3]] == [OK, OK, OFF]
    assert not result.passed


def test_a_phase_that_is_off_fails_too() -> None:
    item = measured()
    phases = tuple(
        replace(p, allocated_bytes=2 * p.allocated_bytes) if p.name == "backward" else p
        for p in item.recording.phases
    )
    result = validate_records([replace(item, recording=replace(item.recording, phases=phases))])
    assert [row.metric for row in result.rows if row.verdict == OFF] == ["backward: after"]
    assert not result.passed
    assert result.core is not None
    assert result.core.count == 3


OOM = OutOfMemory(1, "forward", "", "linear", 1 << 30, "CUDA out of memory")


def test_a_run_out_of_memory_that_was_foreseen_is_right() -> None:
    workload = replace(WORKLOAD, gpu="2GiB", seq_len=4096, micro_batch_size=4)
    result = validate_records([measured(workload, out_of_memory=OOM)])
    assert [(row.metric, row.verdict) for row in result.rows] == [("fits", OK)]
    assert result.wrong_verdicts == ()
    assert result.passed


def test_a_wrong_fit_verdict_fails() -> None:
    result = validate_records([measured(out_of_memory=OOM)])
    assert len(result.wrong_verdicts) == 1
    assert not result.passed
    assert "wrong fit verdicts" in result.problems[0]


def test_a_refused_run_is_not_counted() -> None:
    result = validate_records([measured(refused="bitsandbytes: no")])
    assert [row.verdict for row in result.rows] == [NOT_COUNTED]


def test_a_measured_workload_that_the_engine_does_not_know_is_not_covered() -> None:
    item = measured()
    other = replace(item, workload={**item.workload, "loss": "chunked"})
    result = validate_records([other])
    assert [row.verdict for row in result.rows] == [NOT_COVERED]


def test_matching_by_source_and_method() -> None:
    chosen = matching(load_records(), source="litgpt", method="qlora")
    assert chosen
    with pytest.raises(ConfigError, match="nothing to validate"):
        matching(load_records(), source="nowhere")
