"""The estimate as a person reads it: how much, of what, and at which moment of the step."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.report.numbers import (
    format_count,
    format_gib,
    format_percent,
    format_share,
    format_size,
)
from memplan.report.style import heading, labelled, plain_table
from memplan.report.words import describe_assumed, describe_fit, describe_moment, describe_run
from memplan.results import Estimate

BAR_WIDTH = 24
VERDICT_STYLE = {True: "bold green", False: "bold red"}


def estimate_report(estimate: Estimate) -> Group:
    """Everything an estimate says, top down: the verdict, the totals, the moment, the why."""
    return Group(*_parts(estimate))


def _parts(estimate: Estimate) -> Iterator[RenderableType]:
    yield Text(describe_run(estimate.workload), style="bold")
    yield Text(_parameters_line(estimate), style="dim")
    yield Text()
    yield totals_table(estimate)
    if estimate.gpu is not None:
        yield Text()
        yield Text(describe_fit(estimate.gpu), style=VERDICT_STYLE[estimate.gpu.fits])
    yield heading(f"At the allocated peak: {describe_moment(estimate.peak)}")
    yield breakdown_table(estimate)
    yield heading("By phase")
    yield phases_table(estimate)
    yield Text()
    yield from _footnotes(estimate)


def _parameters_line(estimate: Estimate) -> str:
    count = estimate.parameters
    return (
        f"{format_count(count.total)} parameters, {format_count(count.trainable)} trainable "
        f"({format_percent(count.trainable_fraction)}), "
        f"checkpoint {format_size(estimate.checkpoint_bytes)}"
    )


def totals_table(estimate: Estimate) -> Table:
    """The four totals that are never confused."""
    table = plain_table("Peak GPU memory", "GiB", "bytes")
    for label, nbytes, style in (
        ("requested by tensors", estimate.peak_requested_bytes, ""),
        ("allocated  torch.cuda.max_memory_allocated()", estimate.peak_allocated_bytes, "bold"),
        ("reserved   torch.cuda.max_memory_reserved()", estimate.peak_reserved_bytes, ""),
        ("device     nvidia-smi: reserved + CUDA context", estimate.device_bytes, ""),
    ):
        table.add_row(label, format_gib(nbytes), f"{nbytes:,}", style=style)
    return table


def breakdown_table(estimate: Estimate) -> Table:
    """What stands in memory at the allocated peak, largest first."""
    table = plain_table("what", "GiB", "share", "")
    table.columns[-1].justify = "left"
    total = estimate.peak_allocated_bytes
    rows = sorted(estimate.breakdown_at_peak.items(), key=lambda item: -item[1])
    for name, nbytes in rows:
        if nbytes:
            bar = "█" * round(BAR_WIDTH * nbytes / total)
            share = format_share(nbytes, total)
            table.add_row(name.replace("_", " "), format_gib(nbytes), share, Text(bar, "cyan"))
    return table


def phases_table(estimate: Estimate) -> Table:
    """The phases of the last step, after the load. [GiB]"""
    table = plain_table("GiB", "peak allocated", "peak reserved", "allocated after")
    for name, phase in estimate.phases.items():
        table.add_row(
            name.replace("_", " "),
            format_gib(phase.peak_allocated_bytes),
            format_gib(phase.peak_reserved_bytes),
            format_gib(phase.allocated_bytes),
        )
    return table


def _footnotes(estimate: Estimate) -> Iterator[RenderableType]:
    if estimate.assumed:
        yield labelled("assumed ", describe_assumed(estimate))
    level = ". ".join((estimate.evidence.level, *estimate.evidence.notes))
    yield labelled("evidence", level)
    for warning in estimate.warnings:
        yield labelled("warning ", warning, style="yellow")
