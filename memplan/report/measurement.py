"""A measurement beside its estimate: totals, then phase by phase, each with the difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.evidence.grid import Cell, Plan
from memplan.evidence.recording import OutOfMemory, PhaseCounters
from memplan.evidence.records import Measurement
from memplan.report.numbers import format_gib, format_size
from memplan.report.style import labelled, plain_table
from memplan.report.words import describe_fit, describe_moment, describe_run
from memplan.results import Estimate, PeakMoment, PhaseMemory

COLUMNS = ("measured", "estimated", "difference")
TOTALS = ("requested", "allocated", "reserved")
KINDS = {"cuda": "measured on", "virtual": "virtual: measured on the virtual GPU as"}
MAX_TOLD = 3  # refusals of a grid that are told in full


def measurement_report(measurement: Measurement, estimate: Estimate | None) -> Group:
    """Everything that a run gave, beside what was estimated."""
    return Group(*_parts(measurement, estimate))


def _parts(measurement: Measurement, estimate: Estimate | None) -> Iterator[RenderableType]:
    recording = measurement.recording
    yield Text(describe_run(measurement.workload), style="bold")
    yield Text(describe_target(measurement), style="dim")
    yield Text()
    if recording.out_of_memory is not None:
        yield Text(describe_out_of_memory(recording.out_of_memory), style="bold red")
        yield Text(describe_verdict(estimate))
        return
    yield totals_table(measurement, estimate)
    yield Text()
    yield phases_table(measurement, estimate)
    if estimate is None:
        yield labelled("estimate", "the fast engine does not know this workload yet")
    elif estimate.gpu is not None and not estimate.gpu.fits:
        yield labelled("estimate", describe_fit(estimate.gpu), style="yellow")
    for note in recording.notes:
        yield labelled("note    ", note)


def describe_target(measurement: Measurement) -> str:
    """Where it was measured, and with what; always says whether the card was virtual."""
    parts = [f"{KINDS[measurement.label]} {measurement.gpu}"]
    if measurement.world_size > 1:
        parts.append(f"rank {measurement.rank} of {measurement.world_size}")
    if measurement.driver is not None:
        parts.append(f"driver {measurement.driver}")
    versions = measurement.versions
    parts += [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    return ", ".join(parts)


def describe_rank(measurement: Measurement) -> str:
    """What a rank took, in one line."""
    recording = measurement.recording
    if recording.out_of_memory is not None:
        return f"rank {measurement.rank}: {describe_out_of_memory(recording.out_of_memory)}"
    peaks = [f"{t} {format_gib(getattr(recording, f'peak_{t}_bytes'))} GiB" for t in TOTALS]
    return f"rank {measurement.rank}: peak {', '.join(peaks)}"


def ranks_table(measurements: Sequence[Measurement]) -> Table:
    """The peaks of every rank. [GiB]"""
    table = plain_table("Peak GPU memory by rank [GiB]", *TOTALS, "allocated bytes")
    for m in measurements:
        peaks = [format_gib(getattr(m.recording, f"peak_{t}_bytes")) for t in TOTALS]
        whole = f"{m.recording.peak_allocated_bytes:,}"
        last = whole if m.recording.out_of_memory is None else "out of memory"
        table.add_row(f"rank {m.rank}", *peaks, last)
    return table


def describe_out_of_memory(stop: OutOfMemory) -> str:
    """Where the run stopped."""
    moment = PeakMoment(stop.step, stop.phase, stop.module, stop.op)
    asked = f": {format_size(stop.requested_bytes)} asked for" if stop.requested_bytes else ""
    return f"Out of memory at {describe_moment(moment)}{asked}."


def describe_verdict(estimate: Estimate | None) -> str:
    """What the estimate said of a run that ended out of memory."""
    if estimate is None or estimate.gpu is None:
        return "Not estimated."
    return f"Estimated: {describe_fit(estimate.gpu)}"


def totals_table(measurement: Measurement, estimate: Estimate | None) -> Table:
    """The peaks of the training. [GiB]"""
    table = plain_table("Peak GPU memory [GiB]", *COLUMNS)
    for name in TOTALS:
        field = f"peak_{name}_bytes"
        told = None if estimate is None else getattr(estimate, field)
        _add_row(table, name, getattr(measurement.recording, field), told)
    used = measurement.recording.device_used_bytes
    if used is not None:
        told = None if estimate is None else estimate.device_bytes
        _add_row(table, "device, as nvidia-smi shows it", used, told)
    return table


def phases_table(measurement: Measurement, estimate: Estimate | None) -> Table:
    """Allocated peaks within each phase, those of the loop in the last step. [GiB]"""
    table = plain_table("Peak allocated by phase [GiB]", *COLUMNS)
    told = {} if estimate is None else estimate.phases
    for name, phase in last_phases(measurement.recording.phases).items():
        other: PhaseMemory | None = told.get(name)
        nbytes = None if other is None else other.peak_allocated_bytes
        _add_row(table, name.replace("_", " "), phase.peak_allocated_bytes, nbytes)
    return table


def last_phases(phases: tuple[PhaseCounters, ...]) -> dict[str, PhaseCounters]:
    """Of several phases with one name, the last."""
    return {phase.name: phase for phase in phases}


def _add_row(table: Table, label: str, measured: int, estimated: int | None) -> None:
    told = "-" if estimated is None else format_gib(estimated)
    table.add_row(label, format_gib(measured), told, format_difference(measured, estimated))


def format_difference(measured: int, estimated: int | None) -> str:
    """How far the estimate is above (+) or below (-) what was measured.

    >>> format_difference(4096, 4096), format_difference(1000, 1024), format_difference(0, None)
    ('equal', '+24 B +2.40 %', '-')
    """
    if estimated is None:
        return "-"
    if estimated == measured:
        return "equal"
    gap = estimated - measured
    sign = "+" if gap > 0 else "-"
    share = f" {100 * gap / measured:+.2f} %" if measured else ""
    return f"{sign}{format_size(abs(gap))}{share}"


def plan_report(plan: Plan) -> Group:
    """What becomes of a grid, before it runs."""
    return Group(*_plan_parts(plan))


def _plan_parts(plan: Plan) -> Iterator[RenderableType]:
    runs = "1 run." if len(plan.runs) == 1 else f"{len(plan.runs)} runs, largest first."
    yield Text(runs, style="bold")
    if plan.recorded:
        yield labelled("recorded", f"{len(plan.recorded)} already are, and are not run again")
    for cell in plan.too_large:
        yield labelled("skipped ", describe_skipped(cell))
    reasons = list(dict.fromkeys(reason for _, reason in plan.refused))
    for reason in reasons[:MAX_TOLD]:
        yield labelled("refused ", reason)
    if len(reasons) > MAX_TOLD:
        yield labelled("refused ", f"and {len(reasons) - MAX_TOLD} more reasons")


def describe_skipped(cell: Cell) -> str:
    """A run that is predicted not to fit."""
    gap = cell.estimate.gpu if cell.estimate is not None else None
    lacking = "" if gap is None else f": predicted to lack {format_size(-gap.headroom_bytes)}"
    return f"{describe_run(cell.workload.to_dict())}{lacking}"
