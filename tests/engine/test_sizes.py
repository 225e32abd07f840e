"""Sizes of a whole grid behave as ints, and part where they differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.engine.sizes import Cells, Split, Universe, ceil_div, per_cell, round_up, values_of

VALUES = st.lists(st.integers(1, 10_000), min_size=2, max_size=8)


def cells(values: list[int]) -> tuple[Universe, Any]:
    universe = Universe()
    return universe, universe.cells(np.array(values, np.int64))


@given(VALUES, st.integers(1, 600))
def test_arithmetic_is_that_of_every_cell(values: list[int], n: int) -> None:
    _, size = cells(values)
    for function in (
        lambda x: x * n + 3,
        lambda x: n * x - x,
        lambda x: (x + n) // n,
        lambda x: x % n,
        lambda x: round_up(x, 512),
        lambda x: ceil_div(x * 7, n),
    ):
        got = np.broadcast_to(values_of(function(size)), (len(values),))
        assert got.tolist() == [function(v) for v in values]


def test_equal_values_are_one_object() -> None:
    _, size = cells([1, 2, 3])
    assert size * 2 + size is size * 3
    assert size - size == 0  # an int: all cells are equal


def test_a_comparison_that_parts_the_cells_raises_the_mask() -> None:
    _, size = cells([1, 5, 9])
    assert size < 10
    assert not size > 9
    with pytest.raises(Split) as split:
        bool(size > 4)
    assert split.value.mask.tolist() == [False, True, True]


def test_one_cell_is_an_int() -> None:
    assert cells([7, 7])[1] == 7
    assert not isinstance(cells([7, 7])[1], Cells)


def test_a_function_of_ints_is_asked_once_for_each_distinct_cell() -> None:
    asked = SimpleNamespace(pairs=[])
    remember = asked.pairs.append  # a bound function may be told from another, a list may not

    def of(a: int, b: int) -> int:
        remember((a, b))
        return a.bit_length() + b

    _, size = cells([1, 8, 8, 1])
    assert values_of(per_cell(of, size, 2)).tolist() == [3, 6, 6, 3]
    assert values_of(per_cell(of, size, 2)).tolist() == [3, 6, 6, 3]
    assert asked.pairs == [(1, 2), (8, 2)]
    assert per_cell(of, 4, 0) == 3


def test_a_grid_is_not_one_int() -> None:
    with pytest.raises(TypeError, match="not one int"):
        range(cells([1, 2])[1])
