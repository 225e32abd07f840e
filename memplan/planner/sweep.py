"""Grids: one run of the engine answers for every cell whose structure is the same.

``micro_batch_size``, ``seq_len``, ``rank`` and ``num_virtual_tokens`` only change sizes, so they
may be whole axes; every other key that is given as a list is looped over.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from memplan.engine.grid import intern_sizes, live_counts, peaks, rounded_sizes
from memplan.engine.repeat import NotAlike, Stream
from memplan.engine.sizes import Split, Universe
from memplan.engine.steps import Steps
from memplan.engine.tape import Tape
from memplan.errors import ConfigError
from memplan.estimate import estimate
from memplan.running import Run
from memplan.values import checked_value
from memplan.workload import Workload

Array = npt.NDArray[np.int64]
SIZES = ("micro_batch_size", "seq_len", "rank", "num_virtual_tokens")
LISTS = ("target_modules", "modules_to_save")


@dataclass(frozen=True, slots=True)
class Grid:
    """Peaks over a product of axes.

    Attributes:
        axes: (key, its values), in the order in which they were given.
        peak_allocated_bytes: One axis of the array for each of ``axes``. [bytes]
        exact: Whether every cell was simulated; if not, a cell is the live sum of requests rounded
            to 512 B: never above the simulated peak, and mostly within 0.5 % of it.
    """

    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    peak_allocated_bytes: Array
    exact: bool


def sweep(*, exact: bool = False, **keys: Any) -> Grid:
    """The peaks of every combination of the keys that are given as lists.

    Args:
        exact: Simulate the allocator for every cell, as ``estimate`` does.
        keys: Workload keys; a list or an array makes an axis.

    Returns:
        A grid whose array has an axis for each list, in the order given.

    Raises:
        ConfigError: A key is unknown, or a value of some axis cannot be used.

    Example:
        >>> sweep(model="1b", rank=[4, 8], method="lora", seq_len=[256]).peak_allocated_bytes.shape
        (2, 1)
    """
    axes = tuple((k, tuple(_plain(v))) for k, v in keys.items() if _is_axis(k, v))
    fixed = {k: v for k, v in keys.items() if not _is_axis(k, v)}
    for key, values in axes:
        if not values:
            raise ConfigError(f"{key}: the list is empty.")
    shape = tuple(len(values) for _, values in axes)
    if exact:
        cells = [estimate(**fixed, **cell).peak_allocated_bytes for cell in _cells(axes)]
        return Grid(axes, np.array(cells, np.int64).reshape(shape), exact=True)
    return Grid(axes, _vectorised(fixed, axes).reshape(shape), exact=False)


def _is_axis(key: str, value: Any) -> bool:
    if key in LISTS:
        return False
    return isinstance(value, (list, tuple, range, np.ndarray))


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _cells(axes: Sequence[tuple[str, tuple[Any, ...]]]) -> list[dict[str, Any]]:
    names = [name for name, _ in axes]
    return [dict(zip(names, values, strict=True)) for values in product(*(v for _, v in axes))]


def _vectorised(fixed: Mapping[str, Any], axes: Sequence[tuple[str, tuple[Any, ...]]]) -> Array:
    """The grid, one engine run for each combination of structural values."""
    names = [name for name, _ in axes]
    structural = [a for a in axes if a[0] not in SIZES]
    sizes = [a for a in axes if a[0] in SIZES]
    blocks = [_sizes_grid({**fixed, **cell}, sizes) for cell in _cells(structural)]
    shape = [len(v) for _, v in structural] + [len(v) for _, v in sizes]
    grid = np.array(blocks, np.int64).reshape(shape)
    order = [n for n, _ in structural] + [n for n, _ in sizes]
    answer: Array = grid.transpose([order.index(n) for n in names])
    return answer


def _sizes_grid(fixed: Mapping[str, Any], axes: Sequence[tuple[str, tuple[Any, ...]]]) -> Array:
    """Peaks over axes of sizes, flattened."""
    first = {name: values[0] for name, values in axes}
    base, _ = Workload.resolve({**fixed, **first})
    for name, values in axes:  # every value is checked, and the largest of all together
        for value in values:
            checked_value(name, value)
    Workload.resolve({**fixed, **{name: max(values) for name, values in axes}})
    mesh = np.meshgrid(*(np.array(v, np.int64) for _, v in axes), indexing="ij")
    columns = {name: m.reshape(-1) for (name, _), m in zip(axes, mesh, strict=True)}
    return _all_parts(Run.of(base), columns)


def _all_parts(run: Run, columns: Mapping[str, Array]) -> Array:
    """Run the cells together; where a comparison parts them, each part by itself."""
    count = len(next(iter(columns.values()))) if columns else 1
    out = np.zeros(count, np.int64)
    parts = [np.arange(count)]
    while parts:
        part = parts.pop()
        try:
            out[part] = _part(run, {k: v[part] for k, v in columns.items()}, len(part))
        except Split as split:
            parts += [part[split.mask], part[~split.mask]]
    return out


def _part(run: Run, columns: Mapping[str, Array], count: int) -> Array:
    """Peaks of cells that take one path through the program."""
    universe = Universe()
    workload = copy.copy(run.workload)
    for name, values in columns.items():  # sizes that were checked, as a grid of ints
        object.__setattr__(workload, name, universe.cells(values))
    stream, sizes = _stream(run, workload)
    start = next(p.end for p in stream.phases if p.name == "optimizer_init")
    counts = live_counts(stream, len(sizes), start)
    return peaks(counts, rounded_sizes(sizes, count))


def _stream(run: Run, workload: Workload) -> tuple[Stream, list[Any]]:
    """The events of a run over cells, allocations as numbers of sizes, and those sizes."""
    for attempt in run.attempts():
        tape = Tape()
        run.play(tape, workload, attempt)
        sizes = intern_sizes(tape)
        try:
            stream = run.write(tape, attempt)
            Steps(stream, workload.steps)
        except NotAlike:
            continue
        return stream, sizes
    raise AssertionError("an attempt that runs everything is always alike")
