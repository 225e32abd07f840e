"""``memplan compare``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from memplan.cli.flags import (
    FileOption,
    JsonFlag,
    read_flag,
    read_workload,
    split_list,
    workload_flags,
)
from memplan.cli.output import show, write
from memplan.errors import ConfigError

LISTS = ("quantization", "micro_batch_size", "seq_len")
MethodsOption = Annotated[
    str | None,
    typer.Option(
        "--methods", metavar="LIST", help="With commas. [default: full,lora,prompt_tuning]"
    ),
]
RanksOption = Annotated[
    str | None,
    typer.Option("--ranks", metavar="LIST", help="Of the methods that have one. [default: 8]"),
]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print CSV, sizes in bytes.")]
MarkdownFlag = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]


@workload_flags(without=("method", "rank"))
def compare_command(
    methods: MethodsOption = None,
    ranks: RanksOption = None,
    workload: FileOption = None,
    as_json: JsonFlag = False,
    as_csv: CsvFlag = False,
    as_markdown: MarkdownFlag = False,
    **flags: str | None,
) -> None:
    """Compare methods, ranks and quantisation of one model in one table, smallest first.

    --quantization, --micro-batch-size and --seq-len take lists with commas too.
    """
    from memplan.planner.compare import compare

    if as_json + as_csv + as_markdown > 1:
        raise ConfigError("--json, --csv and --markdown: only one of them at a time.")
    lists = {key: _values(key, flags.pop(key)) for key in LISTS if flags.get(key) is not None}
    keys = {**read_workload(workload, flags), **lists}
    if methods is not None:
        keys["methods"] = split_list("--methods", methods)
    if ranks is not None:
        keys["ranks"] = _values("rank", ranks, flag="--ranks")
    _print(compare(**keys), as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)


def _values(key: str, text: str | None, *, flag: str = "") -> tuple[Any, ...]:
    """The entries of a list flag, as values that the workload checks."""
    entries = split_list(flag or f"--{key.replace('_', '-')}", text or "")
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
