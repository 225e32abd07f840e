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
    from memplan.workload import Workload

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

    Several GPUs, with --strategy ddp or fsdp2: torchrun starts a measure for each (torchrun
    --nproc-per-node 2 -m memplan measure ...), and each records its rank. With --virtual there is
    no torchrun: the ranks of --dp-size run one at a time.
    """
    from memplan.evidence.grid import card_of
    from memplan.evidence.measure import check_devices
    from memplan.evidence.records import Writer
    from memplan.evidence.targets import find_target

    keys, label = read_workload(workload, flags), "virtual" if virtual else "cuda"
    axes = _axes(grid)
    if axes is not None and snapshot is not None:
        raise ConfigError("--snapshot: goes with one run, not with --grid.")
    if axes is None and keys.get("model") is None:
        raise ConfigError("model: not given; name a preset such as 7b, or a config.json.")
    if axes is None:
        check_devices(keys, label)
    target = find_target(label, keys.get("gpu", card_of(axes or {})), python=python)
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
    from memplan.evidence.measure import resolve

    workload = resolve(keys, target)
    done: list[Measurement] = []
    ranks = target.ranks(workload.dp_size)
    for rank in ranks:
        measurement = _measure_rank(rank, workload, snapshot)
        if measurement is not None:
            _record(writer, measurement, as_json=as_json)
            done.append(measurement)
    if done and not as_json:
        _show_run(done, workload)
        if not target.rank:
            show(f"\nrecorded in {writer.path}")
    return 0 if len(done) == len(ranks) else FAILED


def _measure_rank(target: Target, workload: Workload, snapshot: Path | None) -> Measurement | None:
    """The measurement of one rank; none if it crashed, which does not end the others."""
    from memplan.evidence.measure import measure_on
    from memplan.evidence.runner.launch import MeasurementError

    if target.runs_alone:
        _tell(f"running rank {target.rank} of {target.world_size}")
    try:
        return measure_on(target, workload, snapshot=snapshot)
    except MeasurementError as error:
        _tell(f"{_rank_of(target)}{error}")
        return None


def _rank_of(target: Target | None) -> str:
    return f"rank {target.rank}: " if target is not None and target.world_size > 1 else ""


def _show_run(done: list[Measurement], workload: Workload) -> None:
    """A run beside its estimate; of several ranks, all of them in one table.

    Of ``torchrun``'s processes the first shows its own rank, and the others a line each.
    """
    from memplan.evidence.measure import estimate_of
    from memplan.report.measurement import describe_rank, measurement_report, ranks_table

    if len(done) == 1 and done[0].rank:
        show(describe_rank(done[0]))
        return
    show(measurement_report(done[0], estimate_of(workload)))
    if len(done) > 1:
        show("")
        show(ranks_table(done))


def _measure_grid(
    axes: Mapping[str, Any],
    keys: Mapping[str, Any],
    target: Target,
    writer: Writer,
    *,
    as_json: bool,
) -> int:
    from memplan.evidence.grid import combine, finished, make_plan, measure_grid
    from memplan.evidence.records import read

    recorded = finished(read(writer.path, tell=_tell))
    plan = make_plan(combine(axes, keys), target, recorded=recorded)
    _show_plan(plan, as_json=as_json)
    outcomes = measure_grid(plan, target, begin=_begin)
    failed = [o for o in outcomes if not _finish(o, writer, as_json=as_json)]
    total, off = len(plan.runs), len({id(o.cell) for o in failed})
    _tell(f"{total - off} of {total} runs are recorded in {writer.path}.")
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
        _tell(f"{_rank_of(outcome.target)}not recorded: {outcome.error}")
        return False
    _record(writer, outcome.measurement, as_json=as_json)
    if not as_json and not outcome.measurement.rank:
        from memplan.report.measurement import measurement_report

        show("")
        show(measurement_report(outcome.measurement, outcome.cell.estimate))
    elif not as_json:
        from memplan.report.measurement import describe_rank

        show(describe_rank(outcome.measurement))
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
        with writer.alone():  # the lines of several ranks are longer than what a pipe takes at once
            write(to_line(measurement))
            sys.stdout.flush()


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
