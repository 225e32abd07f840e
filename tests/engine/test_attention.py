"""Attention and other kernels that borrow by size and card, against what the CUDA build did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.dtypes import BF16, FP32
from memplan.engine.kernels import Kernels
from memplan.engine.ops.attention import choose, scaled_dot_product_attention
from memplan.engine.ops.attention_flash import flash_splits
from memplan.engine.ops.cutlass import backward_kernel, backward_workspace
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.engine.tensor import empty
from memplan.errors import UnsupportedError
from tests.engine.kernel_cases import CARDS, KERNEL_CASES, kernels_of, masks
from tests.engine.observe import events_of_memplan

FOLDER = Path(__file__).with_name("recorded_kernels")
RECORDED: dict[str, dict[str, Any]] = {
    card: json.loads((FOLDER / f"{card}.json").read_text())["calls"] for card in CARDS
}
BY_NAME = {case.key(mask): (case, mask) for case in KERNEL_CASES for mask in masks(case)}


def agrees(card: str, name: str) -> bool:
    """Whether one call makes and frees what was recorded, or is refused as torch refused it."""
    case, mask = BY_NAME[name]
    recorded = RECORDED[card][name]
    try:
        return bool(list(events_of_memplan(case, mask, kernels_of(card))) == recorded)
    except UnsupportedError:
        return recorded is None


@pytest.mark.parametrize("card", CARDS)
def test_every_call_makes_and_frees_what_the_cuda_build_does(card: str) -> None:
    assert [name for name in RECORDED[card] if not agrees(card, name)] == []


@pytest.mark.parametrize("card", CARDS)
def test_every_call_was_recorded(card: str) -> None:
    # a card of 15 GiB has no room for the largest sums
    assert len(set(BY_NAME) - set(RECORDED[card])) <= 8


def chosen(card: str, shape: tuple[int, ...], dtype: Any, *, masked: bool = False) -> str:
    """The kernel that torch picks in training."""
    with run(Tape(), kernels_of(card)):
        q = empty(shape, dtype)
        return choose(q, q, q if masked else None, not masked, "sdpa", trains=True)


def test_the_kernel_is_torchs_choice() -> None:
    assert chosen("a100-80gb", (1, 4, 8, 64), BF16) == "sdpa-flash"
    assert chosen("a100-80gb", (1, 4, 8, 64), BF16, masked=True) == "sdpa-efficient"
    assert chosen("a100-80gb", (1, 4, 8, 64), FP32) == "sdpa-efficient"
    assert chosen("a100-80gb", (1, 4, 8, 100), BF16, masked=True) == "sdpa-math"
    assert chosen("a100-80gb", (1, 4, 8, 264), BF16) == "sdpa-efficient"
    assert chosen("a100-80gb", (1, 4, 8, 200), BF16) == "sdpa-flash"
    assert chosen("l4", (1, 4, 8, 200), BF16) == "sdpa-efficient"
    assert chosen("t4", (1, 4, 8, 64), BF16) == "sdpa-math"


@pytest.mark.parametrize(
    ("kernel", "dtype", "masked", "reason"),
    [
        ("sdpa-flash", FP32, False, "16-bit floats, not float32"),
        ("sdpa-flash", BF16, True, "takes no mask"),
        ("sdpa-efficient", BF16, True, "multiple of 8, not 12"),
    ],
)
def test_a_forced_kernel_that_cannot_run_says_why(
    kernel: str, dtype: Any, masked: bool, reason: str
) -> None:
    with run(Tape(), Kernels()):
        q = empty((1, 2, 8, 12), dtype)
        mask = empty((1, 1, 8, 8), dtype) if masked else None
        with pytest.raises(UnsupportedError, match=reason):
            scaled_dot_product_attention(q, q, q, mask, kernel=kernel)


@given(
    st.integers(1, 64), st.integers(1, 64), st.integers(1, 5000), st.sampled_from([64, 128, 256])
)
def test_splits_never_outnumber_blocks_of_keys(batch: int, heads: int, n: int, size: int) -> None:
    block = {64: 256, 128: 128, 256: 64}[size]
    assert 1 <= flash_splits(batch, heads, n, n, size, 108) <= max(1, -(-n // block))


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([64, 96, 128, 160]))
def test_a_longer_sequence_never_borrows_less(n: int, more: int, size: int) -> None:
    kernel = backward_kernel(BF16, size, Kernels())
    few = backward_workspace(kernel, 1, 8, n, n, size)
    assert few <= backward_workspace(kernel, 1, 8, n + more, n + more, size)
