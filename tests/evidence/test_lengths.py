from __future__ import annotations

from memplan import estimate
from memplan.evidence.lengths import Batch, run_batches
from memplan.workload import Workload

KEYS = {
    "model": "qwen2.5-0.5b",
    "method": "lora",
    "loop": "plain",
    "micro_batch_size": 2,
    "seq_len": 96,
    "optimizer": "adamw_foreach",
    "gpu": "l40s",
}
WORKLOAD = Workload(**KEYS)  # type: ignore[arg-type]


def test_batches_of_one_length_are_the_workload_itself() -> None:
    counters = run_batches(WORKLOAD, [Batch(96)] * 3)
    expected = estimate(WORKLOAD)
    assert counters.peak_allocated_bytes == expected.peak_allocated_bytes
    assert counters.peak_reserved_bytes == expected.peak_reserved_bytes
    assert counters.fits


def test_a_shorter_batch_before_leaves_less_behind_once_the_cache_is_emptied() -> None:
    kept = run_batches(WORKLOAD, [Batch(64), Batch(96)])
    emptied = run_batches(WORKLOAD, [Batch(64, empties_cache=True), Batch(96)])
    assert emptied.peak_reserved_bytes < kept.peak_reserved_bytes


def test_a_run_that_does_not_fit_is_counted_as_on_an_endless_card() -> None:
    small = Workload(**{**KEYS, "gpu": "2GiB", "seq_len": 1024})  # type: ignore[arg-type]
    counters = run_batches(small, [Batch(1024)] * 2)
    assert not counters.fits
    assert counters.peak_reserved_bytes > 2 << 30
