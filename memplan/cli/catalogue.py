"""``memplan models``, ``memplan methods`` and ``memplan gpus``: what the names stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memplan.cli.flags import JSON
from memplan.cli.options import Command
from memplan.cli.output import show, write


def models_command(*, as_json: bool = False) -> None:
    """List the models that have a preset, with their aliases."""
    from memplan.report.catalogue import model_rows, models_table

    _print(model_rows(), models_table, as_json=as_json)


def methods_command(*, as_json: bool = False) -> None:
    """List the fine-tuning methods, and the keys of a workload that belong to each."""
    from memplan.report.catalogue import method_rows, methods_table

    _print(method_rows(), methods_table, as_json=as_json)


def gpus_command(*, as_json: bool = False) -> None:
    """List the GPUs, with the memory that CUDA reports and that its context takes."""
    from memplan.report.catalogue import gpu_rows, gpus_table

    _print(gpu_rows(), gpus_table, as_json=as_json)


def _print(rows: Sequence[Mapping[str, Any]], table: Any, *, as_json: bool) -> None:
    if as_json:
        from memplan.report.json import render_json

        write(render_json(list(rows)))
    else:
        show(table(rows))


COMMANDS = {
    "models": Command(models_command, (JSON,), "memplan models --json"),
    "methods": Command(methods_command, (JSON,), "memplan methods"),
    "gpus": Command(gpus_command, (JSON,), "memplan gpus"),
}
