"""What methods cost and give beside memory, as a table: one row a method and rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.table import Table

from memplan.planner.compare import Case, Comparison, Row
from memplan.report.numbers import format_percent, format_size
from memplan.report.style import plain_table
from memplan.results import TradeOffs

LEGEND = (
    "saved: what save_pretrained writes. At inference, until it is merged: tokens of the context, "
    "parameters beside the base's, and what a forward computes more. training: FLOPs of forward "
    "and backward, as a share of full fine-tuning's."
)


def describe_case(case: Case) -> str:
    """The method, with the rank where it has one."""
    return case.method if case.rank is None else f"{case.method} r={case.rank}"


def describe_trainable(row: Row) -> str:
    """How many parameters train, and their share."""
    count = row.estimate.parameters
    share = format_percent(count.trainable_fraction).replace(" %", "%")
    return f"{short_count(count.trainable)} {share}"


def short_count(elements: int) -> str:
    """A number of parameters to three digits, without a space.

    >>> short_count(6_738_415_616), short_count(614_400), short_count(0)
    ('6.74B', '614k', '0')
    """
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if elements >= 0.9995 * limit:  # what rounds to a thousand is one of the next
            return f"{elements / limit:.3g}{unit}"
    return str(elements)


# What needs the trade-offs: heading and cell.
COSTS: dict[str, Callable[[TradeOffs], str]] = {
    "merges": lambda t: "yes" if t.merges else "no",
    "tokens": lambda t: f"+{t.context_tokens}" if t.context_tokens else "0",
    "adds": lambda t: short_count(t.inference_parameters),
    "forward": lambda t: added(t.inference_flops_share),
    "training": lambda t: format_percent(t.training_flops_share).replace(" %", "%"),
}
HEADINGS = ("method", "trains", "saved", *COSTS)


def added(share: float) -> str:
    """A share on top of the base's.

    >>> added(0.000587), added(0.0), added(0.0105)
    ('+0.059%', '0%', '+1.05%')
    """
    return ("+" if share > 0 else "") + format_percent(share).replace(" %", "%")


def trade_off_rows(comparison: Comparison) -> Iterator[list[str]]:
    """Cells under ``HEADINGS``, one row a method and rank, in the comparison's order."""
    seen: set[str] = set()
    for row in comparison.rows:
        name = describe_case(row.case)
        if name not in seen:
            seen.add(name)
            yield [name, describe_trainable(row), saved(row), *costs(row)]


def saved(row: Row) -> str:
    """Tensor data of what training saves."""
    return format_size(row.estimate.checkpoint_bytes)


def costs(row: Row) -> list[str]:
    """The cells of ``COSTS``; dashes where nobody counted."""
    found = row.estimate.trade_offs
    return ["-" if found is None else cell(found) for cell in COSTS.values()]


def trade_off_table(comparison: Comparison) -> Table:
    """The trade-offs as a person reads them."""
    table = plain_table(*HEADINGS, gap=1)
    for cells in trade_off_rows(comparison):
        table.add_row(*cells)
    return table
