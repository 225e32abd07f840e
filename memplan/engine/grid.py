"""The peak of every cell of a grid from one stream: counts of live blocks times sizes.

A run over ``sizes.Cells`` asks for a few dozen different sizes, thousands of times. At each moment
the live bytes are the count of each size times the size, so one table of counts serves all cells;
and most moments are beaten, in every count, by another, whatever the cell.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memplan.engine.sizes import Cells, values_of
from memplan.errors import ConfigError

if TYPE_CHECKING:
    from memplan.engine.repeat import Stream
    from memplan.engine.tape import Tape

Array = npt.NDArray[np.int64]
BLOCK = 512
EXACT = 2.0**53
CHUNK = 8192  # cells at a time, so that their totals stay in the processor's cache


def intern_sizes(tape: Tape) -> list[Any]:
    """Replace each allocation's size by its number in the list that is returned."""
    numbers: dict[Any, int] = {}
    events: list[Any] = tape.events
    for i, e in enumerate(events):
        if isinstance(e, Cells) or e >= 0:
            events[i] = numbers.setdefault(e, len(numbers))
    return list(numbers)


def rounded_sizes(sizes: list[Any], cells: int) -> Array:
    """Each size in each cell, rounded to the allocator's blocks: (sizes, cells). [bytes]"""
    table = np.empty((len(sizes), cells), np.int64)
    for row, size in zip(table, sizes, strict=True):
        row[:] = -(-values_of(size) // BLOCK) * BLOCK
    return table


def live_counts(stream_of: Stream, sizes: int, start: int) -> Array:
    """How many blocks of each size live at each moment that may be a peak: (moments, sizes).

    Counts are affine in the layer among the copies of one layer, so the first and the last copy
    stand for those between.

    Args:
        stream_of: The run; allocations as numbers of sizes.
        sizes: How many sizes there are.
        start: The first event of the window.
    """
    stream = np.array(stream_of.events[: stream_of.phases[-1].end], np.int64)
    is_alloc = stream >= 0
    which = np.where(is_alloc, stream, stream[np.where(is_alloc, 0, ~stream)])
    change = np.zeros((len(stream), sizes), np.int32)
    change[np.arange(len(stream)), which] = np.where(is_alloc, 1, -1)
    counts = np.cumsum(change, axis=0, dtype=np.int32)
    is_top = is_alloc & ~np.append(is_alloc[1:], False)
    is_top[: max(start, 1)] = False
    for first, end in stream_of.inner_copies():
        is_top[first:end] = False
    tops = counts[is_top]
    if start:
        tops = np.concatenate([counts[start - 1 : start], tops])
    return np.unique(tops, axis=0).astype(np.int64)


def in_units(counts: Array, table: Array) -> tuple[Array, Array]:
    """The same products from fewer sizes: those in a fixed ratio are counted in a common unit.

    Returns:
        (moments, units) counts and (units, cells) sizes. [bytes]
    """
    groups: list[list[tuple[int, Fraction]]] = []
    for row, size in enumerate(table):
        for group in groups:
            ratio = fixed_ratio(size, table[group[0][0]])
            if ratio is not None:
                group.append((row, ratio))
                break
        else:
            groups.append([(row, Fraction(1))])
    units, columns = [], []
    for group in groups:
        parts = math.lcm(*(ratio.denominator for _, ratio in group))
        units.append(table[group[0][0]] // parts)
        columns.append(sum(counts[:, row] * int(ratio * parts) for row, ratio in group))
    return np.stack(columns, axis=1), np.stack(units)


def fixed_ratio(size: Array, reference: Array) -> Fraction | None:
    """``size / reference`` if it is the same in every cell."""
    if not reference[0] or not size[0]:
        return Fraction(1) if np.array_equal(size, reference) else None
    ratio = Fraction(int(size[0]), int(reference[0]))
    top = max(int(size.max()) * ratio.denominator, int(reference.max()) * ratio.numerator)
    if top >= np.iinfo(np.int64).max:
        return None
    same = np.array_equal(size * ratio.denominator, reference * ratio.numerator)
    return ratio if same else None


def undominated(counts: Array, table: Array) -> Array:
    """The moments that are the peak of some cell, and perhaps some that are not."""
    sample = table[:, np.unique(np.linspace(0, table.shape[1] - 1, 64).astype(int))].astype(float)
    order = np.argsort(-(counts @ sample).max(axis=1), kind="stable")
    left, kept = counts[order], []
    while len(left):
        kept.append(left[0])
        left = left[(left > left[0]).any(axis=1)]
    return np.array(kept)


def peaks(counts: Array, table: Array) -> Array:
    """The largest live sum of each cell. [bytes]"""
    counts, units = in_units(counts, table)
    best = np.zeros(table.shape[1])
    moments, sizes = undominated(counts, units).astype(float), units.astype(float)
    for cell in range(0, len(best), CHUNK):
        best[cell : cell + CHUNK] = (moments @ sizes[:, cell : cell + CHUNK]).max(axis=0)
    if best.max() >= EXACT:
        raise ConfigError("the grid holds cells above 8 PiB; no run is that large.")
    return best.astype(np.int64)
