"""The short cut for sums along rows: what it skips would have borrowed nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.dtypes import BF16, FP32
from memplan.engine.kernels import KIB, Kernels
from memplan.engine.reduction import is_row_sum, sum_plan
from memplan.engine.tensor import Tensor, contiguous_strides

CARDS = (
    Kernels(),
    Kernels((8, 9), 58, 1536, 99 * KIB),
    Kernels((9, 0), 132, 2048, 227 * KIB),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=2),
    st.integers(1, 9000),
    st.sampled_from(CARDS),
)
def test_a_row_sum_borrows_nothing(outer: list[int], width: int, card: Kernels) -> None:
    shape = (*outer, width)
    reduced = frozenset((len(outer),))
    if is_row_sum(Tensor(shape, FP32, None), reduced):
        assert sum_plan(shape, contiguous_strides(shape), reduced, FP32, card) == ()


def test_wide_rows_and_16_bits_are_looked_at_in_full() -> None:
    assert not is_row_sum(Tensor((4, 255 * 32 + 1), FP32, None), frozenset((1,)))
    assert not is_row_sum(Tensor((4, 64), BF16, None), frozenset((1,)))
