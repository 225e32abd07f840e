"""``memplan estimate``."""

from __future__ import annotations

from typing import Annotated

import typer

from memplan.cli.flags import FileOption, JsonFlag, read_workload, workload_flags
from memplan.cli.output import show, write
from memplan.errors import ConfigError

CheckFlag = Annotated[bool, typer.Option("--check", help="Exit with 1 if it does not fit --gpu.")]


@workload_flags()
def estimate_command(
    workload: FileOption = None,
    as_json: JsonFlag = False,
    check: CheckFlag = False,
    **flags: str | None,
) -> int:
    """Estimate the peak GPU memory of one fine-tuning run."""
    from memplan.estimate import estimate

    keys = read_workload(workload, flags)
    if check and keys.get("gpu") is None:
        raise ConfigError("--check: needs --gpu to say whether the run fits.")
    result = estimate(**keys)
    if as_json:
        from memplan.report.json import estimate_mapping, render_json

        write(render_json(estimate_mapping(result)))
    else:
        from memplan.report.tables import estimate_report

        show(estimate_report(result))
    return int(check and result.gpu is not None and not result.gpu.fits)
