"""A comparison as a table: for a terminal, and in Markdown for an issue or a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from memplan.planner.compare import AXES, Case, Comparison, Row
from memplan.report.numbers import format_gib, format_size
from memplan.report.style import labelled, plain_table
from memplan.report.tables import VERDICT_STYLE
from memplan.report.trade_offs import (
    HEADINGS,
    LEGEND,
    describe_case,
    trade_off_rows,
    trade_off_table,
)
from memplan.report.words import describe_assumed, describe_run
from memplan.results import GpuFit

REFUSED = "refused"
SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PHASES = {"optimizer_step": "step"}
SIZES = {"micro_batch_size": "batch", "seq_len": "length"}
# Columns of numbers: heading and cell. GiB where the heading says nothing else.
NUMBERS: dict[str, Callable[[Row], str]] = {
    "allocated": lambda row: format_gib(row.estimate.peak_allocated_bytes),
    "reserved": lambda row: format_gib(row.estimate.peak_reserved_bytes),
    "device": lambda row: format_gib(row.estimate.device_bytes),
    "peak in": lambda row: PHASES.get(row.estimate.peak.phase, row.estimate.peak.phase),
    "smallest": lambda row: row.smallest_gpu or "none",
}


def comparison_report(comparison: Comparison) -> Group:
    """The comparison as a person reads it: smallest first, refused combinations last."""
    return Group(*_parts(comparison))


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    first = comparison.rows[0].estimate if comparison.rows else None
    if first is not None:
        yield Text(describe_run(first.workload, without=_varying(comparison)), style="bold")
        yield Text()
    table = plain_table(*headings(comparison), left=len(_case_headings(comparison)), gap=1)
    for row in comparison.rows:
        table.add_row(*_coloured(row, comparison))
    for refusal in comparison.refused:
        table.add_row(*_case_cells(refusal.case, comparison), REFUSED, style="dim")
    yield table
    yield Text()
    yield Text(_legend(comparison), "dim")
    if comparison.rows:
        yield Text()
        yield trade_off_table(comparison)
        yield Text()
        yield Text(LEGEND, "dim")
    assumed = describe_assumed(*(row.estimate for row in comparison.rows), without=AXES)
    if assumed:
        yield labelled("assumed", assumed)
    for reason, labels in _reasons(comparison).items():
        yield labelled(REFUSED, f"{', '.join(labels)}: {reason}")


def _reasons(comparison: Comparison) -> dict[str, dict[str, None]]:
    """Which combinations each reason refuses, each named once."""
    reasons: dict[str, dict[str, None]] = {}
    for item in comparison.refused:
        reasons.setdefault(item.reason, {})[_label(item.case)] = None
    return reasons


def _coloured(row: Row, comparison: Comparison) -> list[str | Text]:
    """One row with its verdict in colour."""
    told: list[str | Text] = [*cells(row, comparison)]
    gpu = row.estimate.gpu
    if gpu is not None:
        told[-1] = Text(str(told[-1]), VERDICT_STYLE[gpu.fits])
    return told


def _legend(comparison: Comparison) -> str:
    text = (
        "Peaks in GiB, of torch's caching allocator; device adds the CUDA context; smallest: the "
        "smallest card of memplan gpus that the run fits."
    )
    gpu = _gpu(comparison)
    if gpu is None:
        return text
    capacity, context = format_size(gpu.capacity_bytes), format_size(gpu.context_bytes)
    return (
        f"{text} The last column: whether it fits {gpu.name} ({capacity} less {context} CUDA "
        "context), and the GiB to spare; what does not fit is shown as on a card without a limit."
    )


def comparison_markdown(comparison: Comparison) -> str:
    """The same table in Markdown, without a trailing newline."""
    names = headings(comparison)
    words = len(_case_headings(comparison))
    lines = [names, ["---"] * words + ["---:"] * (len(names) - words)]
    lines += [cells(row, comparison) for row in comparison.rows]
    for refusal in comparison.refused:
        told = [*_case_cells(refusal.case, comparison), f"{REFUSED}: {refusal.reason}"]
        lines.append(told + [""] * (len(names) - len(told)))
    return "\n".join([*_piped(lines), "", *_piped(_trade_off_lines(comparison))]).rstrip()


def _trade_off_lines(comparison: Comparison) -> list[list[str]]:
    """The second table: what the methods cost and give beside memory."""
    rows = list(trade_off_rows(comparison))
    return [[*HEADINGS], ["---", *["---:"] * (len(HEADINGS) - 1)], *rows] if rows else []


def _piped(lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(map(_escaped, line)) + " |" for line in lines]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def headings(comparison: Comparison) -> list[str]:
    """Names of the columns; the last says whether it fits and what is to spare."""
    return [*_case_headings(comparison), *NUMBERS, *(["fits"] if _gpu(comparison) else [])]


def cells(row: Row, comparison: Comparison) -> list[str]:
    """One row as text."""
    numbers = [cell(row) for cell in NUMBERS.values()]
    return [*_case_cells(row.case, comparison), *numbers, *_gpu_cells(row)]


def _gpu(comparison: Comparison) -> GpuFit | None:
    return next((row.estimate.gpu for row in comparison.rows), None)


def _gpu_cells(row: Row) -> list[str]:
    gpu = row.estimate.gpu
    if gpu is None:
        return []
    sign = "+" if gpu.headroom_bytes >= 0 else ""
    return [f"{'yes' if gpu.fits else 'no'} {sign}{format_gib(gpu.headroom_bytes)}"]


def _varying(comparison: Comparison) -> set[str]:
    """Axes that tell rows apart; the method and the base always stand in the table."""
    cases = [row.case for row in comparison.rows] + [item.case for item in comparison.refused]
    vary = {key for key in AXES if len({getattr(case, key) for case in cases}) > 1}
    return vary | {"method", "rank", "quantization"}


def _case_headings(comparison: Comparison) -> list[str]:
    vary = _varying(comparison)
    return ["method", "base", *(name for key, name in SIZES.items() if key in vary)]


def _case_cells(case: Case, comparison: Comparison) -> list[str]:
    vary = _varying(comparison)
    return [
        describe_case(case),
        _base(case, comparison),
        *(str(getattr(case, key)) for key in SIZES if key in vary),
    ]


def _base(case: Case, comparison: Comparison) -> str:
    """How the base model is stored: its scheme, or its dtype."""
    if case.quantization != "none" or not comparison.rows:
        return case.quantization
    dtype = str(comparison.rows[0].estimate.workload["dtype"])
    return SHORT_DTYPES.get(dtype, dtype)


def _label(case: Case) -> str:
    return f"{describe_case(case)} on {case.quantization}"
