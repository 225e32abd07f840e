"""``memplan compare``."""

from __future__ import annotations

from typing import Any

from memplan.cli.flags import FILE, JSON, read_flag, read_workload, split_list, workload_options
from memplan.cli.options import Command, Option
from memplan.cli.output import show, write
from memplan.errors import ConfigError

LISTS = ("quantization", "micro_batch_size", "seq_len")
OPTIONS = (
    Option(
        name="methods",
        flag="--methods",
        metavar="LIST",
        help="With commas. [default: full,lora,prompt_tuning]",
    ),
    Option(
        name="ranks",
        flag="--ranks",
        metavar="LIST",
        help="Of the methods that have one. [default: 8]",
    ),
    FILE,
    JSON,
    Option(name="as_csv", flag="--csv", help="Print CSV, sizes in bytes."),
    Option(name="as_markdown", flag="--markdown", help="Print a Markdown table."),
)


def compare_command(
    *,
    methods: str | None = None,
    ranks: str | None = None,
    workload: str | None = None,
    as_json: bool = False,
    as_csv: bool = False,
    as_markdown: bool = False,
    **flags: str,
) -> None:
    """Compare methods, ranks and quantisation of one model in one table, smallest first.

    --quantization, --micro-batch-size and --seq-len take lists with commas too.
    """
    from memplan.planner.compare import compare

    if as_json + as_csv + as_markdown > 1:
        raise ConfigError("--json, --csv and --markdown: only one of them at a time.")
    lists = {key: _values(key, flags.pop(key)) for key in LISTS if key in flags}
    keys = {**read_workload(workload, flags), **lists}
    if methods is not None:
        keys["methods"] = split_list("--methods", methods)
    if ranks is not None:
        keys["ranks"] = _values("rank", ranks, flag="--ranks")
    _print(compare(**keys), as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)


def _values(key: str, text: str, *, flag: str = "") -> tuple[Any, ...]:
    """The entries of a list flag, as values that the workload checks."""
    entries = split_list(flag or f"--{key.replace('_', '-')}", text)
    return tuple(read_flag(key, entry) for entry in entries)


def _print(comparison: Any, *, as_json: bool, as_csv: bool, as_markdown: bool) -> None:
    if as_json:
        from memplan.report.json import render_json
        from memplan.report.rows import comparison_mapping

        write(render_json(comparison_mapping(comparison)))
    elif as_csv:
        from memplan.report.rows import comparison_csv

        write(comparison_csv(comparison).rstrip("\n"))
    elif as_markdown:
        from memplan.report.compare import comparison_markdown

        write(comparison_markdown(comparison))
    else:
        from memplan.report.compare import comparison_report

        show(comparison_report(comparison))


COMMANDS = {
    "compare": Command(
        compare_command,
        (*OPTIONS, *workload_options(without=("method", "rank"))),
        "memplan compare --model 7b --methods full,lora --ranks 4,16 --gpu a10g",
    )
}
