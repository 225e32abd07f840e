"""Grids: a cell of the vectorised pass is the scalar run's rounded live sum."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memplan
from memplan.errors import ConfigError
from memplan.planner.sweep import sweep
from memplan.running import Run
from memplan.workload import Workload
from tests.engine.strategies import SMALL, workloads


def rounded_live_sum(**keys: Any) -> int:
    """The largest sum of live requests, each rounded to 512 B, over the training steps."""
    stream = Run.of(Workload.resolve(keys)[0]).record().stream
    start = next(p.end for p in stream.phases if p.name == "optimizer_init")
    live = peak = 0
    for i, e in enumerate(stream.events[: stream.phases[-1].end]):
        nbytes = e if e >= 0 else stream.events[~e]
        live += (1 if e >= 0 else -1) * -(-nbytes // 512) * 512
        if i + 1 >= start:
            peak = max(peak, live)
    return peak


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    workloads(), st.sets(st.integers(1, 4), min_size=1), st.sets(st.integers(1, 300), max_size=3)
)
def test_a_cell_is_the_scalar_runs_rounded_live_sum(
    keys: dict[str, Any], batches: set[int], lengths: set[int]
) -> None:
    axes = {"micro_batch_size": sorted(batches), "seq_len": sorted(lengths | {64})}
    grid = sweep(**{**keys, **axes}).peak_allocated_bytes
    for (i, b), (j, n) in product(*(enumerate(v) for v in axes.values())):
        cell = {**keys, "micro_batch_size": b, "seq_len": n}
        assert grid[i, j] == rounded_live_sum(**cell)
        assert grid[i, j] <= memplan.estimate(**cell).peak_allocated_bytes


def test_axes_stand_in_the_order_given() -> None:
    grid = sweep(model=SMALL, seq_len=[8, 16, 32], method=["lora", "full"], micro_batch_size=[1, 2])
    assert grid.peak_allocated_bytes.shape == (3, 2, 2)
    alone = sweep(model=SMALL, method="full", seq_len=[16], micro_batch_size=[2])
    assert grid.peak_allocated_bytes[1, 1, 1] == alone.peak_allocated_bytes[0, 0]


def test_a_rank_may_be_an_axis() -> None:
    grid = sweep(model=SMALL, method="lora", rank=[1, 8, 300], seq_len=[64])
    assert (np.diff(grid.peak_allocated_bytes[:, 0]) > 0).all()


def test_an_exact_cell_is_the_estimate() -> None:
    keys: dict[str, Any] = {"model": SMALL, "method": "lora", "optimizer": "adamw_foreach"}
    grid = sweep(exact=True, **keys, micro_batch_size=[1, 3], seq_len=[50, 100])
    for (i, b), (j, n) in product(enumerate([1, 3]), enumerate([50, 100])):
        e = memplan.estimate(**keys, micro_batch_size=b, seq_len=n)
        assert grid.peak_allocated_bytes[i, j] == e.peak_allocated_bytes


def test_arrays_make_axes_too() -> None:
    grid = sweep(model=SMALL, seq_len=np.arange(8, 32, 8))
    assert grid.axes == (("seq_len", (8, 16, 24)),)


@pytest.mark.parametrize("bad", [[0], [64, -1], [1.5], ["x"], [2**70], []])
def test_a_bad_value_on_an_axis_is_refused(bad: list[Any]) -> None:
    with pytest.raises(ConfigError, match="seq_len"):
        sweep(model=SMALL, seq_len=bad)
