"""One measured number beside memplan's, and what many of them say together.

An error is estimated less measured, over measured. A published value that was rounded only says
that the measurement lies in an interval; the error is counted from its nearer end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

OK, OFF, NOT_COUNTED, NOT_COVERED = "ok", "off", "not counted", "not covered"
ALL_KNOWN = "A"
"""The grade of a run whose settings come all from files or commands."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far off estimates may be, as shares of what was measured."""

    median: float = 0.005
    worst: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured number and what memplan says of it.

    Attributes:
        id: Of the record.
        label: ``published``, ``cuda`` or ``virtual``: who measured, and on what.
        source: Where it comes from.
        grade: Completeness of what is known of the run, ``A`` to ``C``.
        num_gpus: Devices of the run.
        gpu: The card.
        model: The model.
        method: What trained.
        metric: What was measured.
        verdict: ``ok``, ``off``, ``not counted`` or ``not covered``.
        measured_bytes: As measured. [bytes]
        halfwidth_bytes: How far rounding can have moved it. [bytes]
        estimated_bytes: As estimated. [bytes]
        error: Signed, as a share of what was measured, beyond the rounding.
        fits_measured: Whether the run got through on its card.
        fits_estimated: Whether memplan says that it does.
        reason: Why it is not covered or not counted, or why it is off.
        note: Inputs that were inferred or assumed.
        detail: Whether it is about one phase of a run whose peaks have rows of their own; held to
            the tolerance, and left out of the summaries.
        title: What to call the run in a table; empty: by its id.
    """

    id: str
    label: str
    source: str
    grade: str
    num_gpus: int
    gpu: str
    model: str
    method: str
    metric: str
    verdict: str
    measured_bytes: int | None = None
    halfwidth_bytes: int = 0
    estimated_bytes: int | None = None
    error: float | None = None
    fits_measured: bool | None = None
    fits_estimated: bool | None = None
    reason: str = ""
    note: str = ""
    detail: bool = False
    title: str = ""

    @property
    def counts(self) -> bool:
        """Whether its error is part of the summaries."""
        return self.verdict in (OK, OFF) and self.error is not None and not self.detail

    @property
    def wrong_verdict(self) -> bool:
        """Whether memplan says that a run fits which did not, or the reverse."""
        known = self.verdict in (OK, OFF) and None not in (self.fits_measured, self.fits_estimated)
        return known and self.fits_measured != self.fits_estimated


@dataclass(frozen=True, slots=True)
class Summary:
    """Absolute errors of some rows, as shares of what was measured."""

    by: str
    name: str
    count: int
    median: float
    mean: float
    worst: float
    worst_id: str


def is_core(row: Row) -> bool:
    """Whether the tolerance is about this row."""
    return row.grade == ALL_KNOWN and row.num_gpus == 1


def summarise(by: str, name: str, rows: Sequence[Row]) -> Summary | None:
    """The errors of some rows, or nothing of none."""
    errors = [(abs(row.error), row.id) for row in rows if row.counts and row.error is not None]
    if not errors:
        return None
    sizes = [size for size, _ in errors]
    worst, worst_id = max(errors)
    return Summary(by, name, len(errors), median(sizes), fmean(sizes), worst, worst_id)


def relative_error(estimated: int, measured: int, halfwidth: int = 0) -> float:
    """The signed error beyond the rounding.

    >>> relative_error(103, 100), relative_error(103, 100, 5), relative_error(90, 100, 5)
    (0.03, 0.0, -0.05)
    """
    off = estimated - measured
    beyond = max(0, abs(off) - halfwidth)
    return (beyond if off > 0 else -beyond) / measured if beyond else 0.0


def summaries(rows: Sequence[Row]) -> Iterator[Summary]:
    """By method, model, source and metric, then over all rows that count."""
    groups: dict[str, Callable[[Row], str]] = {
        "method": lambda row: row.method,
        "model": lambda row: row.model,
        "source": lambda row: row.source,
        "metric": lambda row: row.metric,
    }
    for by, key in groups.items():
        for name in sorted({key(row) for row in rows if row.counts}):
            summary = summarise(by, name, [row for row in rows if key(row) == name])
            if summary:
                yield summary
    total = summarise("all", "every row that counts", rows)
    if total:
        yield total
