"""A rehearsal, for people and for programs: totals, phases, and what stood at the peak."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.evidence.recording import BlockGroup, OutOfMemory, PhaseCounters, Recording
from memplan.evidence.rehearse import Rehearsal
from memplan.report.numbers import format_count, format_gib, format_percent, format_share
from memplan.report.style import heading, labelled, plain_table
from memplan.report.tables import VERDICT_STYLE
from memplan.report.words import describe_fit, describe_moment
from memplan.results import GpuFit, PeakMoment

MOST = 12
LAYER = re.compile(r"\.\d+(?=\.|$)")
NO_MODULE = "(none)"
NO_LINE = "(backward)"
SCHEMA = "memplan.rehearsal/1"


def rehearsal_report(rehearsals: Sequence[Rehearsal]) -> Group:
    """Every rank's totals; of the one that takes the most, all that is known."""
    return Group(*_parts(rehearsals))


def _parts(rehearsals: Sequence[Rehearsal]) -> Iterator[RenderableType]:
    told = [r for r in rehearsals if r.recording is not None]
    first = rehearsals[0]
    yield Text()
    yield Text(_title(first), style="bold")
    for r in rehearsals:
        if r.exit_code and r.fits:
            rank = f" (rank {r.rank})" if r.world_size > 1 else ""
            yield Text(f"The script failed{rank}: exit code {r.exit_code}.", style="bold red")
    if not told:
        yield Text("The script never used the GPU: nothing was counted.", style="bold red")
        return
    if len(rehearsals) > 1:
        yield ranks_table(told)
    worst = max(told, key=lambda r: _recording(r).peak_allocated_bytes)
    yield from _detail(worst)


def _title(rehearsal: Rehearsal) -> str:
    cards = f"{rehearsal.world_size} x " if rehearsal.world_size > 1 else ""
    command = " ".join(rehearsal.command)
    return f"Virtual GPU, not a CUDA run: {command}, on {cards}{rehearsal.device.name}"


def _recording(rehearsal: Rehearsal) -> Recording:
    assert rehearsal.recording is not None
    return rehearsal.recording


def ranks_table(rehearsals: Sequence[Rehearsal]) -> Table:
    """Peaks of each rank. [GiB]"""
    table = plain_table("rank", "requested", "allocated", "reserved", "fits")
    for r in rehearsals:
        rec = _recording(r)
        peaks = (rec.peak_requested_bytes, rec.peak_allocated_bytes, rec.peak_reserved_bytes)
        verdict = Text("yes" if r.fits else "no", VERDICT_STYLE[r.fits])
        table.add_row(str(r.rank), *map(format_gib, peaks), verdict)
    return table


def _detail(rehearsal: Rehearsal) -> Iterator[RenderableType]:
    rec = _recording(rehearsal)
    if rehearsal.world_size > 1:
        yield heading(f"Rank {rehearsal.rank}")
    if rec.total_parameters:
        yield Text(_parameters(rec), style="dim")
    yield Text()
    yield totals_table(rec, rehearsal)
    yield Text()
    yield Text(verdict_of(rehearsal), style=VERDICT_STYLE[rehearsal.fits])
    if rec.peak is not None and rec.breakdown_at_peak is not None:
        where = "When memory ran out" if rec.out_of_memory else "At the allocated peak"
        yield heading(f"{where}: {describe_moment(rec.peak)}")
        yield from _blocks(rec)
    yield heading("By phase")
    yield phases_table(rec.phases)
    yield Text()
    yield from _notes(rec)


def _parameters(rec: Recording) -> str:
    share = format_percent(rec.trainable_parameters / rec.total_parameters)
    total, trainable = format_count(rec.total_parameters), format_count(rec.trainable_parameters)
    return f"{total} parameters, {trainable} trainable ({share}), {rec.steps} steps"


def context_bytes(rec: Recording) -> int:
    """What of the device was taken before torch's allocator took anything. [bytes]"""
    return rec.device.total_bytes - rec.device.free_bytes


def device_bytes(rec: Recording) -> int:
    """The most that was reserved, loading included, and the context. [bytes]"""
    return max((p.peak_reserved_bytes for p in rec.phases), default=0) + context_bytes(rec)


def totals_table(rec: Recording, rehearsal: Rehearsal) -> Table:
    """The four totals that are never confused."""
    table = plain_table("Peak GPU memory (virtual)", "GiB", "bytes")
    for label, nbytes, style in (
        ("requested by tensors", rec.peak_requested_bytes, ""),
        ("allocated  torch.cuda.max_memory_allocated()", rec.peak_allocated_bytes, "bold"),
        ("reserved   torch.cuda.max_memory_reserved()", rec.peak_reserved_bytes, ""),
        ("device     nvidia-smi: reserved + CUDA context", device_bytes(rec), ""),
    ):
        table.add_row(label, format_gib(nbytes), f"{nbytes:,}", style=style)
    return table


def fit_of(rehearsal: Rehearsal) -> GpuFit:
    """What the card does with the script."""
    rec = _recording(rehearsal)
    stop = rec.out_of_memory
    return GpuFit(
        name=rehearsal.device.name,
        capacity_bytes=rec.device.total_bytes,
        context_bytes=context_bytes(rec),
        fits=rehearsal.fits,
        headroom_bytes=rec.device.total_bytes - device_bytes(rec),
        out_of_memory=None if stop is None else moment_of(stop),
    )


def moment_of(stop: OutOfMemory) -> PeakMoment:
    """Where memory ran out."""
    return PeakMoment(stop.step, stop.phase, stop.module, stop.op)


def verdict_of(rehearsal: Rehearsal) -> str:
    """Fits or not, in one sentence; of an out of memory, what was asked for and what stood."""
    rec = _recording(rehearsal)
    stop = rec.out_of_memory
    if stop is None:
        return describe_fit(fit_of(rehearsal))
    moment = describe_moment(moment_of(stop))
    stood = (
        rec.phases[-1].allocated_bytes
        if rec.breakdown_at_peak is None
        else sum(rec.breakdown_at_peak.values())
    )
    return (
        f"Does not fit {rehearsal.device.name}: out of memory at {moment}: "
        f"{format_gib(stop.requested_bytes)} GiB more were asked for, when "
        f"{format_gib(stood)} GiB were allocated."
    )


def _blocks(rec: Recording) -> Iterator[RenderableType]:
    assert rec.breakdown_at_peak is not None
    total = sum(rec.breakdown_at_peak.values())
    rows = [(k.replace("_", " "), v) for k, v in rec.breakdown_at_peak.items() if v]
    yield _ranked("what", rows, total)
    yield Text()
    yield _ranked("module", _by(rec.blocks, _module), total)
    yield Text()
    yield _ranked("line of Python, or operator in backward", _by(rec.blocks, _line), total)


def _module(block: BlockGroup) -> str:
    """The module's name, the same for every layer."""
    return LAYER.sub(".*", block.module) or NO_MODULE


def _line(block: BlockGroup) -> str:
    return block.line or f"{NO_LINE} {block.op}"


def _by(blocks: Sequence[BlockGroup], key: Callable[[BlockGroup], str]) -> list[tuple[str, int]]:
    found: dict[str, int] = defaultdict(int)
    for block in blocks:
        found[key(block)] += block.nbytes
    return list(found.items())


def _ranked(title: str, rows: Sequence[tuple[str, int]], total: int) -> Table:
    """The largest rows with their share; the rest in one."""
    table = plain_table(title, "GiB", "share")
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    ranked = sorted(rows, key=lambda row: -row[1])
    for name, nbytes in ranked[:MOST]:
        table.add_row(name, format_gib(nbytes), format_share(nbytes, total))
    rest = sum(nbytes for _, nbytes in ranked[MOST:])
    if rest:
        name = f"{len(ranked) - MOST} more"
        table.add_row(name, format_gib(rest), format_share(rest, total), style="dim")
    return table


def phases_table(phases: Sequence[PhaseCounters]) -> Table:
    """What came before the training, the last step, and what came after. [GiB]"""
    table = plain_table("GiB", "peak allocated", "peak reserved", "allocated after")
    for p in shown_phases(phases):
        name = p.name.replace("_", " ")
        values = (p.peak_allocated_bytes, p.peak_reserved_bytes, p.allocated_bytes)
        table.add_row(name, *map(format_gib, values))
    return table


def shown_phases(phases: Sequence[PhaseCounters]) -> list[PhaseCounters]:
    """Of each phase by name, the last."""
    last: dict[str, PhaseCounters] = {}
    for p in phases:
        last.pop(p.name, None)
        last[p.name] = p
    return list(last.values())


def _notes(rec: Recording) -> Iterator[RenderableType]:
    versions = ", ".join(f"{name} {version}" for name, version in rec.versions.items())
    yield labelled(
        "evidence", f"virtual. {versions}; the allocator is torch's own, kernels do nothing"
    )
    for note in rec.notes:
        yield labelled("note    ", note, style="yellow")


def rehearsal_mapping(rehearsals: Sequence[Rehearsal]) -> dict[str, Any]:
    """For JSON: an estimate's keys as far as they are known, of the rank that takes the most."""
    told = [r for r in rehearsals if r.recording is not None]
    if not told:
        return {"schema": SCHEMA, "ranks": []}
    worst = max(told, key=lambda r: _recording(r).peak_allocated_bytes)
    return {"schema": SCHEMA, **_mapping(worst), "ranks": [_rank(r) for r in told]}


def _mapping(rehearsal: Rehearsal) -> dict[str, Any]:
    rec = _recording(rehearsal)
    return {
        "command": list(rehearsal.command),
        "peak_requested_bytes": rec.peak_requested_bytes,
        "peak_allocated_bytes": rec.peak_allocated_bytes,
        "peak_reserved_bytes": rec.peak_reserved_bytes,
        "device_bytes": device_bytes(rec),
        "peak": rec.peak and asdict(rec.peak),
        "breakdown_at_peak": rec.breakdown_at_peak,
        "phases": {p.name: asdict(p) for p in shown_phases(rec.phases)},
        "parameters": {"total": rec.total_parameters, "trainable": rec.trainable_parameters},
        "checkpoint_bytes": rec.checkpoint_bytes,
        "gpu": asdict(fit_of(rehearsal)),
        "out_of_memory": rec.out_of_memory and asdict(rec.out_of_memory),
        "blocks": [asdict(b) for b in rec.blocks],
        "evidence": {"level": "virtual", "notes": list(rec.notes)},
        "versions": dict(rec.versions),
    }


def _rank(rehearsal: Rehearsal) -> dict[str, Any]:
    rec = _recording(rehearsal)
    return {
        "rank": rehearsal.rank,
        "exit_code": rehearsal.exit_code,
        "fits": rehearsal.fits,
        "peak_requested_bytes": rec.peak_requested_bytes,
        "peak_allocated_bytes": rec.peak_allocated_bytes,
        "peak_reserved_bytes": rec.peak_reserved_bytes,
    }
