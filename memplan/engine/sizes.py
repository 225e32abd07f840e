"""Sizes of a whole grid at once: ints that stand for an int64 array.

A ``Cells`` behaves as an int in a shape: arithmetic gives another, interned by value, so that an
expression is computed once however many ops ask for it. A comparison must hold in all cells or in
none; where it parts them, ``Split`` is raised with the mask and the run is made again for each
part. So ops are written once, for ints.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.int64]


SAMPLE = 64
"""Cells by which values are told apart before all are compared."""


class Split(Exception):
    """A comparison that holds in some cells and not in others."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        super().__init__("the cells of a grid take different paths")
        self.mask = mask


class Universe:
    """The cells of one run: every ``Cells`` of it, by value and by the expression that made it."""

    def __init__(self) -> None:
        self.by_value: dict[bytes, list[Cells]] = {}
        self.by_expression: dict[tuple[Any, ...], Any] = {}

    def cells(self, values: Array) -> Cells | int:
        """The one object for these values; an int where all are equal."""
        sample = values[:: len(values) // SAMPLE + 1]
        first = int(sample[0])
        if (sample == first).all() and (values == first).all():
            return first
        alike = self.by_value.setdefault(sample.tobytes(), [])
        for found in alike:
            if (found.values == values).all():
                return found
        alike.append(Cells(values, self))
        return alike[-1]

    def apply(self, function: Callable[..., Any], a: Any, b: Any) -> Any:
        """``function`` over arrays, remembered."""
        key = (function, a, b)
        found = self.by_expression.get(key)
        if found is None:
            found = self.by_expression[key] = self.cells(function(values_of(a), values_of(b)))
        return found

    def compare(self, function: Callable[..., Any], a: Any, b: Any) -> bool:
        """``function`` over arrays as one answer for all cells."""
        key = (function, a, b)
        found = self.by_expression.get(key)
        if found is None:
            mask = function(values_of(a), values_of(b))
            if mask.any() and not mask.all():
                raise Split(mask)
            found = self.by_expression[key] = bool(mask[0])
        return bool(found)


def values_of(x: Any) -> Any:
    """The array behind a size, or the int itself."""
    return x.values if isinstance(x, Cells) else x


class Cells:
    """One size in every cell of a grid."""

    __slots__ = ("universe", "values")

    def __init__(self, values: Array, universe: Universe) -> None:
        self.values, self.universe = values, universe

    def __hash__(self) -> int:
        return id(self)

    def __index__(self) -> int:
        raise TypeError("a grid of sizes is not one int")

    def __neg__(self) -> Any:
        return self.universe.apply(operator.mul, self, -1)


def _arithmetic(function: Callable[[Any, Any], Any], reflected: bool) -> Callable[..., Any]:
    def method(self: Cells, other: Any) -> Any:
        a, b = (other, self) if reflected else (self, other)
        return self.universe.apply(function, a, b)

    return method


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[..., bool]:
    def method(self: Cells, other: Any) -> bool:
        if self is other:
            return function in (operator.eq, operator.le, operator.ge)
        return self.universe.compare(function, self, other)

    return method


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(Cells, f"__{_name}__", _arithmetic(getattr(operator, _name), reflected=False))
    setattr(Cells, f"__r{_name}__", _arithmetic(getattr(operator, _name), reflected=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Cells, f"__{_name}__", _comparison(getattr(operator, _name)))


def ceil_div(n: int, m: int) -> int:
    """``n / m`` rounded up."""
    return -(-n // m)


def round_up(n: int, m: int) -> int:
    """``n`` rounded up to a multiple of ``m``."""
    return -(-n // m) * m


def per_cell(function: Callable[..., int], *sizes: int) -> int:
    """``function`` of ints, for each distinct combination of the sizes; remembered by its code."""
    universe = universe_of(sizes)
    if universe is None:
        return function(*sizes)
    remembered = universe.by_expression
    bound = tuple(c.cell_contents for c in function.__closure__ or ())
    key = (function.__code__, bound, sizes)
    if key not in remembered:
        remembered[key] = each_distinct(function, sizes, universe)
    answer: int = remembered[key]
    return answer


def universe_of(sizes: tuple[Any, ...]) -> Universe | None:
    """The cells that some of the sizes are of, or none: all are ints."""
    return next((s.universe for s in sizes if isinstance(s, Cells)), None)


def each_distinct(function: Callable[..., int], sizes: tuple[Any, ...], universe: Universe) -> Any:
    """``per_cell`` where some size is a grid."""
    import numpy as np

    length = next(len(s.values) for s in sizes if isinstance(s, Cells))
    columns = [np.broadcast_to(values_of(s), (length,)) for s in sizes]
    rows, inverse = np.unique(np.stack(columns), axis=1, return_inverse=True)
    answers = np.array([function(*row) for row in rows.T.tolist()], dtype=np.int64)
    return universe.cells(answers[inverse.reshape(-1)])
