"""``memplan validate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.cli.flags import JSON
from memplan.cli.options import Command, Option
from memplan.cli.output import show, write
from memplan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memplan.evidence.published import Record
    from memplan.evidence.records import Measurement
    from memplan.evidence.verdicts import Tolerance

DEVICES = ("cuda", "virtual")
OPTIONS = (
    Option(
        name="against",
        flag="--against",
        metavar="WHAT",
        help="published, cuda or virtual (measured now), or a file of memplan measure."
        " [default: published]",
    ),
    Option(
        name="tolerance",
        flag="--tolerance",
        metavar="PERCENT",
        help="Median error that is allowed, and after a comma the worst. [default: 0.5,3]",
    ),
    Option(name="source", flag="--source", metavar="TEXT", help="Only sources or ids with it."),
    Option(name="method", flag="--method", metavar="NAME", help="Only runs that train so."),
    Option(name="everything", flag="--all", help="Also what is not covered, and each phase."),
    JSON,
)
# What --against cuda and --against virtual run: small, and unlike each other.
WORKLOADS: tuple[dict[str, Any], ...] = (
    {"model": "qwen2.5-0.5b", "method": "full", "seq_len": 256},
    {"model": "qwen2.5-0.5b", "method": "lora", "seq_len": 512, "micro_batch_size": 2},
    {"model": "qwen3-0.6b", "method": "lora", "seq_len": 512, "activation_checkpointing": True},
    {"model": "llama-3.2-1b", "method": "lora", "rank": 16, "seq_len": 512},
    {"model": "llama-3.2-1b", "method": "prompt_tuning", "seq_len": 512},
    {"model": "tinyllama-1.1b", "method": "lora", "quantization": "nf4", "seq_len": 512},
)
VIRTUAL_CARD = "a10g"


def validate_command(
    *,
    against: str = "published",
    tolerance: str | None = None,
    source: str | None = None,
    method: str | None = None,
    everything: bool = False,
    as_json: bool = False,
) -> int:
    """Hold estimates against measurements; exit with 1 past the tolerance.

    The tolerance is about runs on one GPU whose settings are all known (grade A): the median of
    their absolute errors, and the worst one that is not explained. A wrong fit verdict fails too.
    """
    from memplan.evidence.validate import matching, validate_records

    limits = read_tolerance(tolerance)
    items = matching(evidence(against), source=source, method=method)
    result = validate_records(items, tolerance=limits)
    if as_json:
        from memplan.report.json import render_json
        from memplan.report.validation import validation_mapping

        write(render_json(validation_mapping(result)))
    else:
        from memplan.report.validation import validation_report

        show(validation_report(result, everything=everything))
    return int(not result.passed)


def read_tolerance(text: str | None) -> Tolerance:
    """The tolerance that a flag states in percent.

    Example:
        >>> read_tolerance("1,5")
        Tolerance(median=0.01, worst=0.05)
    """
    from memplan.evidence.verdicts import Tolerance

    if text is None:
        return Tolerance()
    try:
        shares = [float(part) / 100 for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) not in (1, 2) or not all(0 <= share < float("inf") for share in shares):
        raise ConfigError(
            f"--tolerance: expected percent, such as 0.5 or 0.5,3, got {text[:80]!r}."
        )
    return Tolerance(*shares) if len(shares) == 2 else Tolerance(median=shares[0])


def evidence(against: str) -> Sequence[Record | Measurement]:
    """The records that ``--against`` names; runs are measured now."""
    if against == "published":
        from memplan.evidence.published import load_records

        return load_records()
    if against in DEVICES:
        return measured_now(against)
    if not Path(against).expanduser().exists():
        raise ConfigError(
            f"--against: {against[:200]!r} is neither published, cuda, virtual nor a file."
        )
    from memplan.evidence.records import read

    return read(against, tell=_tell)


def _tell(text: str) -> None:
    sys.stderr.write(f"memplan: {text}\n")


def measured_now(label: str) -> list[Measurement]:
    """Measurements of ``WORKLOADS``, each from a process of its own."""
    from memplan.evidence.measure import measure

    card = {"gpu": VIRTUAL_CARD} if label == "virtual" else {}
    made = []
    for number, keys in enumerate(WORKLOADS, 1):
        _tell(f"measuring {number} of {len(WORKLOADS)} ({label}): {keys['model']} {keys['method']}")
        made.append(measure({**keys, **card}, label=label))
    return made


COMMANDS = {
    "validate": Command(
        validate_command,
        OPTIONS,
        "memplan validate --against published --method prompt_tuning",
    )
}
