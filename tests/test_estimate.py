"""The main job, from keys to numbers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import memplan
from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Phase, replay
from memplan.engine.tape import EMPTY_CACHE, PhaseMark
from memplan.errors import ConfigError
from memplan.running import Run
from memplan.simulation import simulate
from memplan.workload import Workload
from tests.engine.strategies import SMALL

CASES: list[dict[str, Any]] = [
    {"method": "full", "seq_len": 50},
    {"method": "lora", "seq_len": 70, "activation_checkpointing": True, "dropout": 0.1},
    {"method": "lora", "seq_len": 33, "dtype": "float32", "autocast": "bfloat16"},
    {"method": "prompt_tuning", "seq_len": 64, "quantization": "nf4-dq"},
    {"method": "frozen", "seq_len": 100, "use_cache": True},
]


def totals(keys: dict[str, Any]) -> tuple[int, int, int]:
    e = memplan.estimate(model=SMALL, **keys)
    return e.peak_requested_bytes, e.peak_allocated_bytes, e.peak_reserved_bytes


def test_estimates_in_several_threads_do_not_meet() -> None:
    alone = [totals(keys) for keys in CASES]
    with ThreadPoolExecutor(max_workers=5) as pool:
        assert list(pool.map(totals, CASES * 6)) == alone * 6


@contextmanager
def collector(*, threshold: int) -> Iterator[None]:
    before, was_on = gc.get_threshold(), gc.isenabled()
    gc.set_threshold(threshold)
    if not threshold:
        gc.disable()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if was_on:
            gc.enable()


@pytest.mark.parametrize("keys", CASES)
def test_the_cyclic_collector_has_no_say(keys: dict[str, Any]) -> None:
    plain = totals(keys)
    with collector(threshold=0):
        assert totals(keys) == plain
    with collector(threshold=1):
        assert totals(keys) == plain


def test_a_run_leaves_no_storage_in_a_cycle() -> None:
    totals(CASES[1])
    gc.collect()
    gc.disable()
    try:
        totals(CASES[1])
        assert not [o for o in gc.get_objects() if type(o).__name__ == "Storage"]
    finally:
        gc.enable()


def test_a_workload_may_be_given_whole() -> None:
    workload, _ = Workload.resolve(model=SMALL, seq_len=32)
    assert memplan.estimate(workload) == memplan.estimate(workload, steps=3)


def test_defaults_that_were_assumed_are_named() -> None:
    e = memplan.estimate(model=SMALL, method="lora")
    assert {"rank", "seq_len", "model.head_dim"} <= set(e.assumed)
    assert "method" not in e.assumed


def test_more_steps_change_no_peak_once_steps_repeat() -> None:
    assert totals({"steps": 4}) == totals({"steps": 400})


@pytest.mark.parametrize("keys", CASES)
@pytest.mark.parametrize("micro_batches", [5, 12, 13])
def test_micro_batches_that_are_passed_over_change_nothing(
    keys: dict[str, Any], micro_batches: int
) -> None:
    values = {**keys, "gradient_accumulation_steps": micro_batches, "steps": 2}
    recording = Run.of(Workload.resolve(model=SMALL, **values)[0]).record()
    named = [(m.end, m.name if m.name == EMPTY_CACHE else m) for m in recording.stream.phases]
    whole = replay(Allocator(), recording.stream.events, named)
    told = simulate(recording, Allocator())
    assert told.peak_phase.peak_allocated_bytes == max(
        p.peak_allocated_bytes for p in whole.phases if is_of_a_step(p)
    )
    assert [counters(p) for p in told.steps[-1][-4:]] == [counters(p) for p in whole.phases[-4:]]
    if micro_batches > 5:
        assert len(told.steps[0]) < 2 * micro_batches + 2  # some were passed over


def is_of_a_step(phase: Phase) -> bool:
    return isinstance(phase.key, PhaseMark) and phase.key.step >= 0


def counters(phase: Phase) -> tuple[int, ...]:
    """What torch's counters say of a phase."""
    return (
        *(phase.requested_bytes, phase.allocated_bytes, phase.reserved_bytes),
        *(phase.peak_requested_bytes, phase.peak_allocated_bytes, phase.peak_reserved_bytes),
    )


@pytest.mark.parametrize("keys", CASES)
@pytest.mark.parametrize("steps", [6, 7])
def test_the_last_step_is_told_where_steps_take_turns(keys: dict[str, Any], steps: int) -> None:
    run = Run.of(Workload.resolve(model=SMALL, **{**keys, "steps": steps})[0])
    recording = run.record()
    events, marks = list(recording.stream.events), list(recording.stream.phases)
    del events[marks[-1].end :]
    for step in range(recording.steps.ran, steps):
        events += recording.steps.events(step)
        marks += recording.steps.marks(step)
    named = [(m.end, m.name if m.name == EMPTY_CACHE else m) for m in marks]
    every = replay(Allocator(), events, named)
    told = simulate(recording, Allocator())
    assert told.steps[told.last][-1].reserved_bytes == every.phases[-1].reserved_bytes
    assert [p.peak_allocated_bytes for p in told.steps[told.last]] == [
        p.peak_allocated_bytes
        for p in every.phases
        if isinstance(p.key, PhaseMark) and p.key.step == steps - 1
    ]


def test_a_card_that_is_too_small_says_where_it_stops() -> None:
    e = memplan.estimate(model="7b", method="full", gpu="l4")
    assert e.gpu is not None
    assert not e.gpu.fits
    assert e.gpu.headroom_bytes < 0
    assert e.gpu.out_of_memory is not None


def test_targets_that_match_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="target_modules"):
        memplan.estimate(model=SMALL, method="lora", target_modules=["query_key_value"])


def test_gradients_that_a_scaler_refuses_are_refused() -> None:
    half: dict[str, Any] = {
        "model": SMALL,
        "dtype": "float16",
        "autocast": "float16",
        "seq_len": 32,
    }
    with pytest.raises(ConfigError, match="unscale FP16"):
        memplan.estimate(**half, method="full", optimizer="sgd")
    e = memplan.estimate(**half, method="lora", bias="all")  # the model has no biases: all float32
    assert e.parameters.trainable > 0


def test_a_rank_above_the_matrix_is_legal_and_warned_of() -> None:
    e = memplan.estimate(model=SMALL, method="lora", rank=500)
    assert any("rank 500" in w for w in e.warnings)


def test_what_is_checkpointed_of_an_adapter_is_what_trains() -> None:
    e = memplan.estimate(model=SMALL, method="lora", rank=4, target_modules=["q_proj"])
    elements = 9 * 4 * (128 + 128)
    assert e.parameters.trainable == elements
    assert e.checkpoint_bytes == elements * 4  # float32
