"""A memory snapshot as a person reads it: how much, of what, and who had asked for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.evidence.explain import PEAK, Explanation, FailedRequest, SnapshotTotals
from memplan.evidence.explain import Group as Blocks
from memplan.report.numbers import format_gib, format_share, format_size
from memplan.report.style import heading, labelled, plain_table

BAR_WIDTH = 24
NAME_WIDTH = 46
TOP = 10


def explanation_mapping(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain mappings, lists and numbers, in the order of the contract."""
    values = asdict(explanation)
    devices = {str(d): nbytes for d, nbytes in explanation.devices.items()}
    return {"schema": values.pop("schema"), **values, "devices": devices}


def explanation_report(explanation: Explanation, *, top: int = TOP) -> Group:
    """Everything a snapshot tells of one device, top down.

    Args:
        explanation: What it tells.
        top: Rows of each table of blocks.
    """
    return Group(*_parts(explanation, top))


def _parts(e: Explanation, top: int) -> Iterator[RenderableType]:
    yield Text(f"{Path(e.snapshot).name}, device {e.device}, {e.events:,} events", style="bold")
    yield Text(_others(e), style="dim")
    yield totals_table(e)
    for failed in e.out_of_memory:
        yield Text()
        yield Text(describe_failed(failed), style="bold red")
    yield heading(_title(e))
    yield categories_table(e)
    for title, blocks in (("module", e.modules), ("line of Python", e.lines), ("operator", e.ops)):
        if blocks:
            yield heading(f"By {title}")
            yield blocks_table(blocks, title, e.moment.requested_bytes, top=top)
    yield Text()
    for note in e.notes:
        yield labelled("note", note)


def _others(e: Explanation) -> str:
    """The devices that are not shown."""
    others = [f"{d} ({format_size(n)} reserved)" for d, n in e.devices.items() if d != e.device]
    return f"not shown: device {', '.join(others)}; see --device\n" if others else ""


def _title(e: Explanation) -> str:
    """What moment is explained."""
    if e.moment.at != PEAK:
        return "When the snapshot was written"
    after = f", event {e.moment.event:,}" if e.moment.event >= 0 else ", as the history begins"
    return f"At the allocated peak{after}: {shortened(e.moment.op)}"


def totals_table(e: Explanation) -> Table:
    """The totals at the explained moment and, beside them, at the end."""
    table = plain_table("GPU memory", "peak GiB", "bytes", "at the end")
    peak = e.moment
    free: SnapshotTotals = e.totals
    rows = (
        ("requested by tensors", peak.requested_bytes, free.requested_bytes),
        ("allocated", peak.allocated_bytes, free.allocated_bytes),
        ("reserved", peak.reserved_bytes, free.reserved_bytes),
    )
    for label, at_peak, at_end in rows:
        table.add_row(label, format_gib(at_peak), f"{at_peak:,}", f"{at_end:,}")
    table.add_row("  of that free", "", "", f"{free.inactive_bytes:,}")
    table.add_row("  largest free block", "", "", f"{free.largest_free_bytes:,}")
    return table


def describe_failed(failed: FailedRequest) -> str:
    """A request for which there was no memory."""
    line = f" ({shortened(failed.line)})" if failed.line else ""
    who = shortened(failed.op or "somebody")
    return (
        f"Out of memory at event {failed.event:,}: {who}{line} asked for "
        f"{format_size(failed.requested_bytes)} beside {format_size(failed.live_bytes)} that "
        f"stood; CUDA had {format_size(failed.device_free_bytes)} free."
    )


def categories_table(e: Explanation) -> Table:
    """What stood in memory by category, largest first."""
    table = plain_table("what (inferred)", "GiB", "bytes", "share", "")
    table.columns[-1].justify = "left"
    total = e.moment.allocated_bytes
    for name, nbytes in sorted(e.breakdown.items(), key=lambda item: -item[1]):
        if nbytes:
            bar = "█" * round(BAR_WIDTH * max(nbytes, 0) / max(total, 1))
            share = format_share(nbytes, total)
            label = name.replace("_", " ")
            table.add_row(label, format_gib(nbytes), f"{nbytes:,}", share, Text(bar, "cyan"))
    return table


def blocks_table(blocks: Sequence[Blocks], title: str, whole: int, *, top: int) -> Table:
    """The largest groups of blocks and, in one row, the rest."""
    table = plain_table(title, "blocks", "bytes", "share")
    for group in blocks[:top]:
        share = format_share(group.nbytes, whole)
        table.add_row(shortened(group.name), f"{group.count:,}", f"{group.nbytes:,}", share)
    rest = blocks[top:]
    if rest:
        nbytes, count = sum(g.nbytes for g in rest), sum(g.count for g in rest)
        label = f"({len(rest):,} more)"
        table.add_row(label, f"{count:,}", f"{nbytes:,}", format_share(nbytes, whole), style="dim")
    return table


def shortened(name: str) -> str:
    """A name that leaves room for the numbers: its end says more than its beginning.

    >>> shortened("a/" + "b" * 60 + ".py:12 forward")
    '…bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.py:12 forward'
    """
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= NAME_WIDTH else "…" + plain[1 - NAME_WIDTH :]
