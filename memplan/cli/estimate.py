"""``memplan estimate``."""

from __future__ import annotations

from memplan.cli.flags import FILE, JSON, read_workload, workload_options
from memplan.cli.options import Command, Option
from memplan.cli.output import show, write
from memplan.errors import ConfigError

ENGINE = Option(
    name="engine",
    flag="--engine",
    metavar="TEXT",
    help=(
        "bytes: memplan's own engine; virtual: the libraries themselves on the virtual GPU "
        "(memplan rehearse --setup); auto: the first where it covers the run. [default: auto]"
    ),
)
CHECK = Option(name="check", flag="--check", help="Exit with 1 if it does not fit --gpu.")


def estimate_command(
    *,
    workload: str | None = None,
    as_json: bool = False,
    check: bool = False,
    engine: str = "auto",
    **flags: str,
) -> int:
    """Estimate the peak GPU memory of one fine-tuning run."""
    from memplan.engines import estimate

    keys = read_workload(workload, flags)
    if check and keys.get("gpu") is None:
        raise ConfigError("--check: needs --gpu to say whether the run fits.")
    result = estimate(engine=engine, **keys)
    if as_json:
        from memplan.report.json import estimate_mapping, render_json

        write(render_json(estimate_mapping(result)))
    else:
        from memplan.report.tables import estimate_report

        show(estimate_report(result))
    return int(check and result.gpu is not None and not result.gpu.fits)


COMMANDS = {
    "estimate": Command(
        estimate_command,
        (FILE, JSON, CHECK, ENGINE, *workload_options()),
        "memplan estimate --model 7b --method lora --rank 8 --gpu a10g",
    )
}
