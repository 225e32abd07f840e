"""A comparison as a table: for a terminal, and in Markdown for an issue or a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from memplan.planner.compare import AXES, Case, Comparison, Row
from memplan.report.numbers import format_count, format_gib, format_percent, format_size
from memplan.report.style import labelled, plain_table
from memplan.report.tables import VERDICT_STYLE
from memplan.report.words import describe_assumed, describe_run
from memplan.results import GpuFit

REFUSED = "refused"
SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
SIZES = {"micro_batch_size": "batch", "seq_len": "length"}
# Columns of numbers: heading and cell. GiB where the heading says nothing else.
NUMBERS: dict[str, Callable[[Row], str]] = {
    "trains": lambda row: _trainable(row),
    "allocated": lambda row: format_gib(row.estimate.peak_allocated_bytes),
    "reserved": lambda row: format_gib(row.estimate.peak_reserved_bytes),
    "device": lambda row: format_gib(row.estimate.device_bytes),
    "peak in": lambda row: row.estimate.peak.phase.replace("_step", ""),
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
    for column in table.columns:
        column.no_wrap = column.header != "trains"
    for row in comparison.rows:
        table.add_row(*_coloured(row, comparison))
    for refusal in comparison.refused:
        table.add_row(*_case_cells(refusal.case, comparison), REFUSED, style="dim")
    yield table
    yield Text()
    yield Text(_legend(comparison), "dim")
    assumed = describe_assumed(*(row.estimate for row in comparison.rows), without=AXES)
    if assumed:
        yield labelled("assumed", assumed)
    reasons = ((_label(item.case), item.reason) for item in comparison.refused)
    for label, reason in dict.fromkeys(reasons):
        yield labelled(REFUSED, f"{label}: {reason}")


def _coloured(row: Row, comparison: Comparison) -> list[str | Text]:
    """One row with its verdict in colour."""
    told: list[str | Text] = [*cells(row, comparison)]
    gpu = row.estimate.gpu
    if gpu is not None:
        told[-1] = Text(str(told[-1]), VERDICT_STYLE[gpu.fits])
    return told


def _legend(comparison: Comparison) -> str:
    text = "Peaks in GiB, of torch's caching allocator; device adds the CUDA context."
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
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def headings(comparison: Comparison) -> list[str]:
    """Names of the columns; the last says whether it fits and what is to spare."""
    return [*_case_headings(comparison), *NUMBERS, *(["fits"] if _gpu(comparison) else [])]


def cells(row: Row, comparison: Comparison) -> list[str]:
    """One row as text."""
    numbers = [cell(row) for cell in NUMBERS.values()]
    return [*_case_cells(row.case, comparison), *numbers, *_gpu_cells(row)]


def _trainable(row: Row) -> str:
    count = row.estimate.parameters
    share = format_percent(count.trainable_fraction)
    return f"{format_count(count.trainable)} {share}".replace(" %", "%")


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
        _method(case),
        _base(case, comparison),
        *(str(getattr(case, key)) for key in SIZES if key in vary),
    ]


def _base(case: Case, comparison: Comparison) -> str:
    """How the base model is stored: its scheme, or its dtype."""
    if case.quantization != "none" or not comparison.rows:
        return case.quantization
    dtype = str(comparison.rows[0].estimate.workload["dtype"])
    return SHORT_DTYPES.get(dtype, dtype)


def _method(case: Case) -> str:
    return case.method if case.rank is None else f"{case.method} r={case.rank}"


def _label(case: Case) -> str:
    return f"{_method(case)} on {case.quantization}"
