"""``memplan measure``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.cli.flags import FILE, JSON, read_workload, workload_options
from memplan.cli.options import Command, Option
from memplan.cli.output import show, write
from memplan.errors import ConfigError

if TYPE_CHECKING:
    from memplan.evidence.grid import Cell, Outcome, Plan
    from memplan.evidence.records import Measurement, Writer
    from memplan.evidence.targets import Target

OUT = "memplan-measurements.jsonl"
DEFAULT = "default"
FAILED = 1
OPTIONS = (
    FILE,
    JSON,
    Option(
        name="out",
        flag="--out",
        metavar="FILE",
        help=f"Where one JSON line a run is appended. [default: {OUT}]",
    ),
    Option(
        name="grid",
        flag="--grid",
        metavar="FILE",
        alone=DEFAULT,
        help="Measure many runs: a JSON, YAML or TOML file of keys with lists of values; without "
        "a file, models x methods x quantisation x lengths. Runs in --out already are left out.",
    ),
    Option(
        name="snapshot",
        flag="--snapshot",
        metavar="FILE",
        help="Leave torch's memory snapshot there (memplan explain).",
    ),
    Option(name="virtual", flag="--virtual", help="On the virtual GPU of the kind --gpu names."),
    Option(
        name="python",
        flag="--python",
        metavar="FILE",
        help="Interpreter that has torch. [default: this one]",
    ),
)


def measure_command(
    *,
    workload: str | None = None,
    as_json: bool = False,
    out: str = OUT,
    grid: str | None = None,
    snapshot: str | None = None,
    virtual: bool = False,
    python: str | None = None,
    **flags: str,
) -> int:
    """Run a workload for real on this machine's GPU, and set what it took beside the estimate.

    Each run is a process of its own, with random weights, and one line in --out. Out of memory is a
    result like any other. Exit code 1: a run crashed or was refused, so that there is no line.
    """
    from memplan.evidence.grid import card_of
    from memplan.evidence.measure import check_strategy
    from memplan.evidence.records import Writer
    from memplan.evidence.targets import find_target

    keys = read_workload(workload, flags)
    check_strategy(keys)
    axes = _axes(grid)
    if axes is not None and snapshot is not None:
        raise ConfigError("--snapshot: goes with one run, not with --grid.")
    if axes is None and keys.get("model") is None:
        raise ConfigError("model: not given; name a preset such as 7b, or a config.json.")
    label, gpu = "virtual" if virtual else "cuda", keys.get("gpu", card_of(axes or {}))
    target = find_target(label, gpu, python=python)
    with Writer(out) as writer:  # before anything runs: what cannot be recorded is not measured
        if axes is None:
            file = None if snapshot is None else _snapshot_path(snapshot)
            return _measure_one(keys, target, writer, snapshot=file, as_json=as_json)
        return _measure_grid(axes, keys, target, writer, as_json=as_json)


def _axes(grid: str | None) -> dict[str, Any] | None:
    """The axes of a grid, or None where there is none."""
    from memplan.evidence.grid import DEFAULT_GRID, load_axes

    if grid is None or grid == "false":  # --no-grid
        return None
    return dict(DEFAULT_GRID) if grid == DEFAULT else load_axes(grid)


def _snapshot_path(text: str) -> Path:
    """A snapshot's file, if it can be made: a run must not end without it."""
    path = Path(text).expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--snapshot: {path}: no file can be made there.")
    return path.absolute()


def _measure_one(
    keys: Mapping[str, Any],
    target: Target,
    writer: Writer,
    *,
    snapshot: Path | None,
    as_json: bool,
) -> int:
    from memplan.evidence.measure import measure_on, resolve
    from memplan.evidence.runner.launch import MeasurementError

    workload = resolve(keys, target)
    try:
        measurement = measure_on(target, workload, snapshot=snapshot)
    except MeasurementError as error:
        _tell(str(error))
        return FAILED
    _record(writer, measurement, as_json=as_json)
    if not as_json:
        from memplan.evidence.measure import estimate_of
        from memplan.report.measurement import measurement_report

        show(measurement_report(measurement, estimate_of(workload)))
        show(f"\nrecorded in {writer.path}")
    return 0


def _measure_grid(
    axes: Mapping[str, Any],
    keys: Mapping[str, Any],
    target: Target,
    writer: Writer,
    *,
    as_json: bool,
) -> int:
    from memplan.evidence.grid import combine, make_plan, measure_grid
    from memplan.evidence.records import read

    recorded = {m.key for m in read(writer.path, tell=_tell)}
    plan = make_plan(combine(axes, keys), target, recorded=recorded)
    _show_plan(plan, as_json=as_json)
    outcomes = measure_grid(plan, target, begin=_begin)
    failed = [o for o in outcomes if not _finish(o, writer, as_json=as_json)]
    total = len(plan.runs)
    _tell(f"{total - len(failed)} of {total} runs are recorded in {writer.path}.")
    return FAILED if failed else 0


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        _tell(f"{len(plan.runs)} runs, {len(plan.too_large)} predicted not to fit.")
        return
    from memplan.report.measurement import plan_report

    show(plan_report(plan))


def _begin(cell: Cell) -> None:
    from memplan.report.words import describe_run

    _tell(f"running {describe_run(cell.workload.to_dict())}")


def _finish(outcome: Outcome, writer: Writer, *, as_json: bool) -> bool:
    """Record and show a run of a grid; False if there is nothing to record."""
    if outcome.measurement is None:
        _tell(f"not recorded: {outcome.error}")
        return False
    _record(writer, outcome.measurement, as_json=as_json)
    if not as_json:
        from memplan.report.measurement import measurement_report

        show("")
        show(measurement_report(outcome.measurement, outcome.cell.estimate))
    return True


def _record(writer: Writer, measurement: Measurement, *, as_json: bool) -> None:
    """Append the line; where that fails it goes to the screen, so that it is not lost."""
    from memplan.evidence.records import RecordsError, to_line

    try:
        writer.append(measurement)
    except RecordsError:
        write(to_line(measurement))
        raise
    if as_json:
        write(to_line(measurement))


def _tell(text: str) -> None:
    """One line for the person who waits, apart from the results."""
    sys.stderr.write(f"memplan: {' '.join(text.split())}\n")
    sys.stderr.flush()


COMMANDS = {
    "measure": Command(
        measure_command,
        (*OPTIONS, *workload_options()),
        "memplan measure --model 1b --method lora --seq-len 512",
    )
}
