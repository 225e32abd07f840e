from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.evidence import grid
from memplan.evidence.grid import Plan, combine, load_axes, make_plan, measure_grid
from memplan.evidence.measure import estimate_of
from memplan.evidence.recording import Recording
from memplan.evidence.runner import launch
from tests.evidence.measurements import STOP, TARGET, fake_run, make_measurement, make_recording

SMALL = {"model": "qwen2.5-0.5b", "method": "lora"}


def lengths(cells: Any) -> list[int]:
    return [cell.workload.seq_len for cell in cells]


def plan_of(axes: Mapping[str, Any], fixed: Mapping[str, Any], **options: Any) -> Plan:
    return make_plan(combine(axes, fixed), TARGET, **options)


def test_keys_that_are_given_take_the_place_of_an_axis() -> None:
    cells = combine(grid.DEFAULT_GRID, {"model": "7b", "seq_len": 64})
    assert len(cells) == 3 * 3
    assert all((cell["model"], cell["seq_len"]) == ("7b", 64) for cell in cells)


def test_largest_fitting_run_comes_first_and_what_cannot_fit_is_skipped() -> None:
    plan = plan_of({"seq_len": [64, 131072, 256, 128]}, SMALL)
    assert lengths(plan.runs) == [256, 128, 64]
    assert lengths(plan.too_large) == [131072]


def test_runs_that_are_recorded_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run", fake_run)
    plan = plan_of({"seq_len": [64, 128]}, SMALL)
    first = next(measure_grid(plan, TARGET)).measurement
    assert first is not None
    again = plan_of({"seq_len": [64, 128]}, SMALL, recorded={first.key})
    assert (lengths(again.runs), lengths(again.recorded)) == ([64], [128])


def test_cells_that_mean_one_run_are_run_once() -> None:
    plan = plan_of({"rank": [4, 8], "method": ["lora", "full"], "dtype": ["bf16"]}, {"model": "1b"})
    assert len(plan.runs) == 3  # full has no rank


def test_what_no_run_can_have_is_refused_and_the_others_run() -> None:
    plan = plan_of({"method": ["full", "lora"]}, {"model": "1b", "quantization": "nf4"})
    assert len(plan.runs) == 1
    assert "method full does not go with" in plan.refused[0][1]


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"method": ["full"], "quantization": ["nf4"]}, "grid: method full does not go with"),
        ({"method": ["loraa"]}, "unknown method"),
        ({"seq_len": []}, "the list is empty"),
        ({"seq_len": list(range(1, 3000))}, "more than 2,000 runs"),
        ({"strategy": ["ddp"]}, "grid: strategy: ddp: say over how many devices"),
    ],
)
def test_grid_that_has_no_run_is_an_error(axes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_of(axes, {"model": "1b"})


def test_a_grid_may_spread_some_of_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run", fake_run)
    plan = plan_of({"strategy": ["single", "ddp"], "dp_size": [1, 2]}, SMALL)
    assert len(plan.runs) == len(plan.refused) == 2
    assert [o.target.rank for o in measure_grid(plan, TARGET) if o.target] == [0, 0, 1]


def test_a_run_of_ranks_is_done_with_all_of_them_or_with_one_out_of_memory() -> None:
    first = replace(make_measurement(strategy="ddp", dp_size=2), world_size=2)
    assert grid.finished([first, first]) == set()
    assert grid.finished([first, replace(first, rank=1)]) == {first.key}
    stopped = replace(first, rank=1, recording=make_recording(out_of_memory=STOP))
    assert grid.finished([stopped]) == {first.key}


def test_grid_names_one_card() -> None:
    assert (grid.card_of({}), grid.card_of({"gpu": ["t4"]})) == (None, "t4")
    with pytest.raises(ConfigError, match="one card"):
        grid.card_of({"gpu": ["t4", "a10g"]})


def test_grid_file_holds_lists_of_values(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("model: 1b\nseq_len: [64, 128]\n")
    assert combine(load_axes(path), {}) == [
        {"model": "1b", "seq_len": 64},
        {"model": "1b", "seq_len": 128},
    ]
    path.write_text("seqlen: 8\n")
    with pytest.raises(ConfigError, match="unknown workload key 'seqlen'"):
        load_axes(path)


def test_out_of_memory_is_a_result_and_a_crash_does_not_end_the_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(workload: Mapping[str, Any], config: Mapping[str, Any], **options: Any) -> Recording:
        if workload["seq_len"] == 128:
            raise launch.MeasurementError("the run crashed (signal 11): it said nothing")
        return make_recording(out_of_memory=STOP)

    monkeypatch.setattr(launch, "run", run)
    outcomes = list(measure_grid(plan_of({"seq_len": [64, 128]}, SMALL), TARGET))
    assert [o.measurement is None for o in outcomes] == [True, False]
    assert "signal 11" in str(outcomes[0].error)
    assert outcomes[1].measurement is not None
    assert outcomes[1].measurement.recording.out_of_memory == STOP


def test_what_has_no_estimate_is_run_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        grid, "estimate_of", lambda w: None if w.method == "full" else estimate_of(w)
    )
    plan = plan_of({"method": ["full", "lora"]}, {"model": "1b", "seq_len": 64})
    assert [cell.workload.method for cell in plan.runs] == ["lora", "full"]


def test_default_grid_holds_what_fits_a_card() -> None:
    cells = combine(grid.DEFAULT_GRID, {"seq_len": 512, "model": "1b"})
    plan = make_plan(cells, TARGET)
    assert plan.runs
    assert isinstance(plan.refused, tuple)
