"""A validation as a table that ends with its summary, and as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from memplan.evidence.validate import Validation
from memplan.evidence.verdicts import NOT_COUNTED, NOT_COVERED, OFF, OK, Row, Summary
from memplan.report.numbers import format_gib
from memplan.report.style import heading, labelled, plain_table

SCHEMA = "memplan.validation/1"
STYLES = {OK: "green", OFF: "red", NOT_COUNTED: "dim", NOT_COVERED: "dim"}
AFFIXES = re.compile(r"^peft-mm-|-(maxres|allocavg)$|-lr_?[\d.]+(e-\d)?(?=-)")
LABELS = {
    "published": "published: measured on real cards by others",
    "cuda": "cuda: measured on a real card",
    "virtual": "virtual: PyTorch's allocator on the virtual GPU, not a real card",
}


def validation_mapping(validation: Validation) -> dict[str, Any]:
    """The validation for JSON; sizes in bytes, errors as shares."""
    return {
        "schema": SCHEMA,
        "passed": validation.passed,
        "problems": list(validation.problems),
        "tolerance": asdict(validation.tolerance),
        "core": None if validation.core is None else asdict(validation.core),
        "wrong_verdicts": list(validation.wrong_verdicts),
        "summaries": [asdict(summary) for summary in validation.summaries],
        "rows": [asdict(row) for row in validation.rows],
    }


def validation_report(validation: Validation, *, everything: bool = False) -> Group:
    """The validation as a person reads it.

    Args:
        validation: What was compared.
        everything: Also the rows that are not covered, and each phase.
    """
    return Group(*_parts(validation, everything))


def _parts(validation: Validation, everything: bool) -> Iterator[RenderableType]:
    for label in dict.fromkeys(row.label for row in validation.rows):
        yield Text(LABELS[label], style="bold")
    shown = [row for row in validation.rows if _is_shown(row, everything)]
    if shown:
        yield Text()
        yield _table(shown)
    yield from _reasons(shown)
    yield from _not_covered(validation)
    yield from _summaries(validation)
    yield Text()
    yield _conclusion(validation)


def _is_shown(row: Row, everything: bool) -> bool:
    return everything or row.verdict == OFF or (row.verdict != NOT_COVERED and not row.detail)


def _table(rows: list[Row]) -> RenderableType:
    table = plain_table("run", "what", "measured", "estimate", "error", "verdict", left=2, gap=1)
    table.columns[0].no_wrap = False
    table.columns[0].max_width = 35
    table.columns[-1].justify = "left"
    for row in rows:
        table.add_row(
            _name(row),
            row.metric if row.detail else row.metric[:9],
            _gib(row.measured_bytes),
            _gib(row.estimated_bytes),
            _error(row),
            Text(_verdict(row), STYLES[row.verdict]),
        )
    return table


def _name(row: Row) -> str:
    return row.title or AFFIXES.sub("", row.id)


def _verdict(row: Row) -> str:
    """The verdict; of a row that is not covered, the kind of obstacle."""
    return f"no: {row.reason.partition(':')[0]}" if row.verdict == NOT_COVERED else row.verdict


def _error(row: Row) -> str:
    """The error in percent, or that there is none, to the byte."""
    if row.error is None:
        return ""
    return "0 B" if row.measured_bytes == row.estimated_bytes else f"{row.error:+.2%}"


def _gib(nbytes: int | None) -> str:
    return "" if nbytes is None else format_gib(nbytes)


def _reasons(rows: list[Row]) -> Iterator[RenderableType]:
    """Why rows are off or not counted, and what was not published."""
    told = [row for row in rows if row.reason and row.verdict in (OFF, NOT_COUNTED)]
    legend = "\nGiB; the error of a value that was rounded is counted from the end of its interval."
    yield Text(legend if any(row.halfwidth_bytes for row in rows) else "\nGiB", "dim")
    for row in told:
        yield labelled(row.verdict, f"{_name(row)}, {row.metric}: {row.reason}")
    for note in dict.fromkeys(row.note for row in rows if row.note):
        yield labelled("inputs", note)


def _not_covered(validation: Validation) -> Iterator[RenderableType]:
    """Reasons with how many rows each has, by kind of obstacle."""
    counts = Counter(row.reason for row in validation.rows if row.verdict == NOT_COVERED)
    if not counts:
        return
    yield heading(f"Not covered yet: {counts.total()} rows")
    kinds: dict[str, list[str]] = {}
    for reason, count in counts.most_common():
        kind, _, which = reason.partition(": ")
        kinds.setdefault(kind, []).append(f"{which} {count}".strip())
    for kind, described in kinds.items():
        yield labelled(kind, ", ".join(described))


def _summaries(validation: Validation) -> Iterator[RenderableType]:
    if not validation.summaries:
        return
    yield heading("Absolute error of the rows that count")
    table = plain_table("by", "", "rows", "median", "mean", "worst", left=2, gap=2)
    for summary in validation.summaries:
        table.add_row(summary.by, summary.name, str(summary.count), *_shares(summary))
    yield table


def _shares(summary: Summary) -> Iterator[str]:
    for share in (summary.median, summary.mean, summary.worst):
        yield f"{share:.2%}"


def _conclusion(validation: Validation) -> Text:
    """The last paragraph: what the tolerance is about, and whether it is kept."""
    limits = validation.tolerance
    allowed = f"median {limits.median:.2%}, worst {limits.worst:.2%} or explained"
    core, wrong = validation.core, len(validation.wrong_verdicts)
    said = "nothing that counts has settings that are all known. "
    if core is not None:
        worst = f" ({AFFIXES.sub('', core.worst_id)})" if core.worst else ""
        said = (
            f"{core.name}: {core.count} rows, median {core.median:.2%}, mean {core.mean:.2%}, "
            f"worst {core.worst:.2%}{worst}. "
        )
    said = f"{said}Wrong fit verdicts: {wrong}. "
    if validation.passed:
        return Text(f"{said}Within the tolerance ({allowed}).", "green")
    return Text(f"{said}Not within it ({allowed}): {'; '.join(validation.problems)}.", "red")
