"""``memplan rehearse``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memplan.cli.flags import JSON
from memplan.cli.options import Command, Option, read_options
from memplan.cli.output import show, write
from memplan.errors import ConfigError, unknown_name

OPTIONS = (
    Option(name="gpu", flag="--gpu", metavar="NAME", help="Card or capacity. [default: a100-80gb]"),
    Option(name="gpus", flag="--gpus", metavar="N", help="How many; one rank each, one at a time."),
    Option(name="ranks", flag="--ranks", metavar="LIST", help="Which ranks to run. [default: all]"),
    Option(name="steps", flag="--steps", metavar="N", help="End after so many optimizer steps."),
    Option(name="snapshot", flag="--snapshot", metavar="FILE", help="Write torch's snapshot."),
    Option(name="venv", flag="--venv", metavar="DIR", help="Your own environment."),
    Option(name="setup", flag="--setup", help="Make the environment of the virtual GPU, once."),
    Option(name="beside", flag="--with", metavar="WHAT", help="What --setup adds: adapters."),
    JSON,
)  # fmt: skip


def rehearse_command(
    *,
    gpu: str | None = None,
    gpus: str | None = None,
    ranks: str | None = None,
    steps: str | None = None,
    snapshot: str | None = None,
    venv: str | None = None,
    setup: bool = False,
    beside: str | None = None,
    as_json: bool = False,
    command: tuple[str, ...] = (),
) -> int:
    """Run a PyTorch training script, unchanged, on a virtual GPU that this machine does not have.

    The command stands after --. Exit code 1 if it runs out of memory, else the script's own.
    """
    folder = None if venv is None else Path(venv).expanduser()
    if beside is not None and not setup:
        raise ConfigError("--with: it goes with --setup.")
    if setup:
        set_up(folder, beside)
        if not command:
            return 0
    target = None if snapshot is None else writable(Path(snapshot).expanduser())
    from memplan.evidence.rehearse import rehearse

    done = list(
        rehearse(
            command,
            gpu=gpu,
            gpus=_number("--gpus", gpus),
            ranks=_numbers("--ranks", ranks),
            steps=_number("--steps", steps),
            snapshot=target,
            venv=folder,
        )
    )
    _print(done, as_json=as_json)
    if not all(r.fits for r in done):
        return 1
    return max((_exit_code(r.exit_code) for r in done), default=0)


def set_up(venv: Path | None, beside: str | None) -> None:
    """Make the environment, and what was asked for beside it, telling each stage."""
    import sys

    from memplan.evidence.virtual import adapters
    from memplan.evidence.virtual.environment import setup

    if beside not in (None, adapters.WORD):
        raise unknown_name("--with", beside, (adapters.WORD,))

    def tell(line: str) -> None:
        sys.stderr.write(line + "\n")

    environment = setup(tell, venv)
    if beside:
        environment = adapters.setup(tell, environment)
    write(f"The virtual GPU is ready: {environment.python}")


def writable(path: Path) -> Path:
    """A file that can be written and is not there yet: nothing of the user's is lost."""
    if path.exists():
        raise ConfigError(f"--snapshot: {path} exists already; name a new file.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--snapshot: {path.parent} is no folder that can be written to.")
    return path


def _number(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.strip().isdigit() or not int(text):
        raise ConfigError(f"{flag}: expected an integer >= 1, got {text!r}.")
    return int(text)


def _numbers(flag: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"{flag}: expected ranks with commas, such as 0,7, got {text!r}.")
    return tuple(map(int, parts))


def _exit_code(code: int) -> int:
    """A shell's way of telling a signal."""
    return code if code >= 0 else 128 - code


def _print(done: list[Any], *, as_json: bool) -> None:
    from memplan.report.rehearsal import rehearsal_mapping, rehearsal_report

    if as_json:
        from memplan.report.json import render_json

        write(render_json(rehearsal_mapping(done)))
    else:
        show(rehearsal_report(done))


@dataclass(frozen=True, slots=True)
class ScriptCommand(Command):
    """A command that takes another one after ``--``."""

    def run(self, words: Iterable[str], *, program: str) -> int:
        """Run it; what stands after ``--`` is the script's."""
        own = list(words)
        at = own.index("--") if "--" in own else len(own)
        given = read_options(own[:at], self.options, program=program)
        return int(self.function(**given, command=tuple(own[at + 1 :])) or 0)


COMMANDS = {
    "rehearse": ScriptCommand(
        rehearse_command, OPTIONS, "memplan rehearse --gpu a10g -- python train.py"
    )
}
