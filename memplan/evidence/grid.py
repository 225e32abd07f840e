"""Many runs on one card: which of a grid fit, largest first, and which are measured already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from os import PathLike
from typing import Any

from memplan.combinations import METHOD_KEYS
from memplan.errors import ConfigError, MemplanError, UnknownNameError
from memplan.evidence.measure import estimate_of, measure_on, resolve
from memplan.evidence.records import Measurement, workload_key
from memplan.evidence.targets import Target
from memplan.results import Estimate
from memplan.workload import DEFAULTS, Workload, load_workload

DEFAULT_GRID: dict[str, tuple[Any, ...]] = {
    "model": ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.2-3b", "llama-2-7b", "llama-2-13b"),
    "method": ("full", "lora", "prompt_tuning"),
    "quantization": ("none", "nf4", "int8"),
    "seq_len": (512, 2048),
}
MAX_CELLS = 2000


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a grid, and its estimate where the fast engine has one."""

    workload: Workload
    estimate: Estimate | None

    @property
    def fits(self) -> bool:
        """Whether it is to be tried: what cannot be estimated is."""
        return self.estimate is None or self.estimate.gpu is None or self.estimate.gpu.fits

    @property
    def size(self) -> int:
        """What orders the runs. [bytes]"""
        return 0 if self.estimate is None else self.estimate.peak_reserved_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each cell.

    Attributes:
        runs: To be measured, largest first; those without an estimate come last.
        too_large: Predicted not to fit the card, so not run.
        recorded: Measured already.
        refused: What no run can have, and why.
    """

    runs: tuple[Cell, ...]
    too_large: tuple[Cell, ...]
    recorded: tuple[Cell, ...]
    refused: tuple[tuple[Mapping[str, Any], str], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, or one rank of it, that was tried: a measurement, or why there is none."""

    cell: Cell
    measurement: Measurement | None
    error: MemplanError | None = None
    target: Target | None = None


def load_axes(path: str | PathLike[str]) -> dict[str, Any]:
    """The keys of a grid file, each with one value or a list of them.

    Raises:
        ConfigError: The file cannot be read, or holds a key that a workload has not.
    """
    return load_workload(path)


def combine(axes: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the axes' values; a key in ``fixed`` has that one value.

    >>> combine({"seq_len": [8, 16], "rank": 4}, {"method": "lora"})
    [{'seq_len': 8, 'rank': 4, 'method': 'lora'}, {'seq_len': 16, 'rank': 4, 'method': 'lora'}]
    """
    values = {key: _values(key, axes[key]) for key in axes if key not in fixed}
    if prod(len(v) for v in values.values()) > MAX_CELLS:
        raise ConfigError(f"grid: more than {MAX_CELLS:,} runs; make several smaller grids.")
    return [
        {**dict(zip(values, chosen, strict=True)), **fixed} for chosen in product(*values.values())
    ]


def _values(key: str, given: Any) -> Sequence[Any]:
    values = given if isinstance(given, (list, tuple)) else [given]
    if not values:
        raise ConfigError(f"grid: {key}: the list is empty.")
    return values


def card_of(axes: Mapping[str, Any]) -> Any:
    """The one card that a grid names, or None."""
    values = _values("gpu", axes.get("gpu"))
    if len(values) > 1:
        raise ConfigError("grid: gpu: a grid runs on one card; give one name.")
    return values[0]


def make_plan(
    cells: Sequence[Mapping[str, Any]], target: Target, *, recorded: Collection[str] = ()
) -> Plan:
    """Estimate every cell and say which are run, in which order.

    Args:
        cells: Keys of each run; those that its method does not take are left out of it.
        target: Where they run.
        recorded: Keys of measurements that are there already.

    Raises:
        ConfigError: All cells are refused for one reason.
    """
    refused: list[tuple[Mapping[str, Any], str]] = []
    workloads: dict[str, Workload] = {}
    for keys in cells:
        workload = _try(keys, target)
        if isinstance(workload, ConfigError):
            refused.append((keys, str(workload)))
        else:
            workloads.setdefault(workload_key(workload.to_dict(), target.label), workload)
    if not workloads and len({reason for _, reason in refused}) == 1:
        raise ConfigError(f"grid: {refused[0][1]}")
    return _sorted(workloads, recorded, refused)


def _try(keys: Mapping[str, Any], target: Target) -> Workload | ConfigError:
    """The workload of one cell, or why no run can have it; a word that is unknown ends it all."""
    method = keys.get("method", DEFAULTS["method"])
    own = {k: v for k, v in keys.items() if method in METHOD_KEYS.get(k, (method,))}
    try:
        return resolve(own, target)
    except UnknownNameError:
        raise
    except ConfigError as error:
        return error


def _sorted(
    workloads: Mapping[str, Workload],
    recorded: Collection[str],
    refused: list[tuple[Mapping[str, Any], str]],
) -> Plan:
    done = [Cell(w, None) for key, w in workloads.items() if key in recorded]
    cells = [Cell(w, estimate_of(w)) for key, w in workloads.items() if key not in recorded]
    cells.sort(key=lambda cell: -cell.size)
    return Plan(
        runs=tuple(cell for cell in cells if cell.fits),
        too_large=tuple(cell for cell in cells if not cell.fits),
        recorded=tuple(done),
        refused=tuple(refused),
    )


def measure_grid(
    plan: Plan, target: Target, *, begin: Callable[[Cell], None] = lambda cell: None
) -> Iterator[Outcome]:
    """Measure the plan's runs one after the other; what one of them meets does not end the grid.

    A run that ends out of memory is measured all the same: that is its result. Of several ranks,
    each that this process runs is one outcome.
    """
    for cell in plan.runs:
        begin(cell)
        for rank in target.ranks(cell.workload.dp_size):
            yield _outcome(cell, rank)


def _outcome(cell: Cell, target: Target) -> Outcome:
    try:
        return Outcome(cell, measure_on(target, cell.workload), target=target)
    except MemplanError as error:
        return Outcome(cell, None, error, target)


def finished(measurements: Iterable[Measurement]) -> set[str]:
    """Keys of the runs that are not to be run again.

    Of several ranks each has its line, or one that was out of memory, which ended the others. All
    of ``torchrun``'s processes must take the same runs for done.
    """
    ranks: dict[str, set[int]] = {}
    done: set[str] = set()
    for m in measurements:
        ranks.setdefault(m.key, set()).add(m.rank)
        if m.recording.out_of_memory is not None or len(ranks[m.key]) == m.world_size:
            done.add(m.key)
    return done
