from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.errors import ConfigError, UnknownNameError, UnsupportedError
from memplan.planner import compare as module
from memplan.planner.compare import Case, Comparison
from memplan.results import Estimate
from memplan.workload import Workload
from tests.report.factory import make_estimate


@pytest.fixture(autouse=True)
def _fixed_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """More for full than for lora, more for a higher rank: enough to see the order."""

    def estimate(**keys: Any) -> Estimate:
        workload, assumed = Workload.resolve(**keys)
        size = (1 << 30) * (90 if workload.method == "full" else workload.rank)
        size //= 4 if workload.is_quantized else 1
        made = make_estimate(workload=workload.to_dict(), assumed=assumed)
        return replace(made, peak_allocated_bytes=size)

    monkeypatch.setattr(module, "estimate", estimate)


def cases(comparison: Comparison) -> list[tuple[str, int | None, str]]:
    return [(r.case.method, r.case.rank, r.case.quantization) for r in comparison.rows]


def test_rows_are_sorted_by_allocated_peak() -> None:
    found = module.compare(model="7b", methods=["full", "lora"], ranks=[32, 4])
    peaks = [row.estimate.peak_allocated_bytes for row in found.rows]
    assert peaks == sorted(peaks)
    assert cases(found) == [("lora", 4, "none"), ("lora", 32, "none"), ("full", None, "none")]


def test_ranks_multiply_only_methods_that_have_one() -> None:
    found = module.compare(model="7b", methods=["full", "lora", "prompt_tuning"], ranks=[4, 8])
    assert len(found.rows) == 1 + 2 + 1


def test_what_libraries_refuse_is_a_refused_row_with_the_reason() -> None:
    found = module.compare(model="7b", methods=["full", "lora"], quantization=["none", "nf4"])
    assert [item.case for item in found.refused] == [Case("full", None, "nf4", 1, 2048)]
    assert "prepare_model_for_kbit_training" in found.refused[0].reason
    assert len(found.rows) == 3


def test_key_of_one_method_is_left_out_for_the_others() -> None:
    found = module.compare(model="7b", methods=["full", "lora"], target_modules="all-linear")
    assert {row.case.method for row in found.rows} == {"full", "lora"}


def test_key_that_no_compared_method_takes_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"compared takes it; lora and rslora and .* do"):
        module.compare(model="7b", methods=["full"], dropout=0.1)


def test_bad_values_are_errors_and_not_refused_rows() -> None:
    with pytest.raises(ConfigError, match="rank: expected an integer >= 1, got 0"):
        module.compare(model="7b", ranks=[8, 0])
    with pytest.raises(ConfigError, match="seq_len"):
        module.compare(model="7b", seq_len=[512, -1])
    with pytest.raises(UnknownNameError, match=r"method 'lorra'.*'lora'"):
        module.compare(model="7b", methods=["lorra"])
    with pytest.raises(UnsupportedError, match="poly"):
        module.compare(model="7b", methods=["poly"])


def test_error_that_every_row_has_is_an_error_of_the_call() -> None:
    with pytest.raises(ConfigError, match="max_grad_norm"):
        module.compare(model="7b", max_grad_norm=-1)


def test_axes_of_sizes_multiply() -> None:
    found = module.compare(model="7b", methods="lora", micro_batch_size=[1, 2], seq_len=[512, 1024])
    assert {(r.case.micro_batch_size, r.case.seq_len) for r in found.rows} == {
        (1, 512),
        (1, 1024),
        (2, 512),
        (2, 1024),
    }
