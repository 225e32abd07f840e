"""Every op saves what torch saves, for every choice of gradients: storages, shapes, dtypes.

``-m torch`` asks CPU torch. What CUDA kernels save and borrow was recorded on the virtual GPU by
``record_ops.py``, and is compared in every run.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import memplan.engine.ops as ops_package
from memplan.engine.ops import fused_linear, liger
from tests.engine.case import Case
from tests.engine.cases import CASES
from tests.engine.observe import Saved, events_of_memplan, saved_by_memplan

RECORDED = json.loads((Path(__file__).parent / "recorded_ops.json").read_text())
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
MAKES_A_NODE = (
    *("Node(", "attach(", "_viewed("),
    *("attach_all(", "of_result(", "record_pair("),
)
# Triton's kernels have no CPU to ask: what these save is held by recorded runs on the virtual GPU
# only, those of tests/evidence/methods.jsonl.
BY_RUNS: tuple[Callable[..., Any], ...] = (
    *(liger.rms_norm, liger.swiglu, liger.rope, liger.record_pair),
    fused_linear.fused_linear_cross_entropy,
)


def ops() -> Iterator[Callable[..., Any]]:
    """The functions of ``memplan.engine.ops`` that record a node."""
    for found in pkgutil.iter_modules(ops_package.__path__):
        module = importlib.import_module(f"{ops_package.__name__}.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or name.startswith("_"):
                continue
            if any(word in inspect.getsource(function) for word in MAKES_A_NODE):
                yield function


def comparable(case: Case, saved: list[Saved]) -> list[tuple[Any, ...]]:
    """What must agree: all of it, or not the shape in which a storage is seen."""
    return [row if case.exact else (row[0], row[2], row[3]) for row in saved]


def names(some: Iterable[Callable[..., Any]]) -> list[str]:
    """Where functions stand."""
    return [f"{op.__module__}.{op.__name__}" for op in some]


def test_every_op_has_a_case_or_is_held_by_runs() -> None:
    covered = {op for case in CASES for op in case.ops}
    assert names(op for op in ops() if op not in covered and op not in BY_RUNS) == []
    assert names(op for op in BY_RUNS if op in covered) == []
    assert names(op for op in BY_RUNS if op not in set(ops())) == []


def test_no_name_is_used_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.torch
@EVERY_CASE
def test_saves_what_cpu_torch_saves(case: Case) -> None:
    from tests.engine.torch_side import saved_by_torch

    if case.cuda_only:
        pytest.skip(case.cuda_only)
    for mask in case.masks():
        required, saved = saved_by_torch(case, mask)
        mine_required, mine = saved_by_memplan(case, mask)
        assert (mask, mine_required) == (mask, required)
        assert (mask, comparable(case, mine)) == (mask, comparable(case, saved))


@EVERY_CASE
def test_saves_what_the_cuda_build_saves(case: Case) -> None:
    for mask in case.masks():
        recorded = RECORDED["calls"][case.key(mask)]
        required, saved = saved_by_memplan(case, mask)
        assert (mask, required) == (mask, recorded["requires_grad"])
        as_rows = [(name, tuple(shape), dtype, n) for name, shape, dtype, n in recorded["saved"]]
        assert (mask, comparable(case, saved)) == (mask, comparable(case, as_rows))


@EVERY_CASE
def test_makes_and_frees_what_the_cuda_build_does(case: Case) -> None:
    for mask in case.masks():
        recorded = RECORDED["calls"][case.key(mask)]
        forward, backward = events_of_memplan(case, mask)
        assert (mask, forward) == (mask, recorded["forward"])
        assert (mask, backward) == (mask, recorded["backward"])


def test_nothing_recorded_is_left_out() -> None:
    assert {case.key(mask) for case in CASES for mask in case.masks()} == set(RECORDED["calls"])
