"""``memplan explain``."""

from __future__ import annotations

from memplan.cli.flags import JSON
from memplan.cli.options import Command, Option
from memplan.cli.output import show, write
from memplan.errors import ConfigError

DEFAULT_TOP = 10
MAX_TOP = 10_000
SNAPSHOT = Option(
    name="snapshot",
    flag="--snapshot",
    metavar="FILE",
    help="A file of torch.cuda.memory._dump_snapshot, gzipped or not.",
)
DEVICE = Option(
    name="device",
    flag="--device",
    metavar="N",
    help="Which device. [default: the one with most memory]",
)
ROWS = Option(name="top", flag="--top", metavar="N", help=f"Rows a table. [default: {DEFAULT_TOP}]")


def explain_command(
    *,
    snapshot: str | None = None,
    device: str | None = None,
    top: str | None = None,
    as_json: bool = False,
) -> None:
    """Explain a memory snapshot of torch: what stood at its peak, and who had asked for it.

    Nothing in the file is run. Categories are inferred from the stacks that torch recorded.
    """
    from memplan.evidence.explain import explain_snapshot

    if snapshot is None:
        raise ConfigError(
            "explain: needs --snapshot FILE, as torch.cuda.memory._dump_snapshot writes it; "
            "workloads are not explained yet (see memplan estimate)."
        )
    rows = DEFAULT_TOP if top is None else _number("--top", top, least=1)
    number = None if device is None else _number("--device", device, least=0)
    result = explain_snapshot(snapshot, device=number)
    if as_json:
        from memplan.report.json import render_json
        from memplan.report.snapshot import explanation_mapping

        write(render_json(explanation_mapping(result)))
    else:
        from memplan.report.snapshot import explanation_report

        show(explanation_report(result, top=rows))


def _number(flag: str, text: str, *, least: int) -> int:
    """The number that a flag was given."""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= MAX_TOP):
        raise ConfigError(f"{flag}: expected an integer from {least} to {MAX_TOP}, got {text!r}.")
    return int(text)


COMMANDS = {
    "explain": Command(
        explain_command,
        (SNAPSHOT, DEVICE, ROWS, JSON),
        "memplan explain --snapshot snapshot.pickle --top 20",
    )
}
