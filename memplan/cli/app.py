"""The program ``memplan``: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import NoReturn

from memplan import __version__
from memplan.cli.options import HELP_FLAGS, Command, unknown
from memplan.errors import MemplanError

PROGRAM = "memplan"
ABOUT = "GPU memory of LLM fine-tuning, to the byte, before you rent a GPU."
HOMES = {  # of each command, the module that has it
    "estimate": "memplan.cli.estimate",
    "compare": "memplan.cli.compare",
    "explain": "memplan.cli.explain",
    "measure": "memplan.cli.measure",
    "rehearse": "memplan.cli.rehearse",
    "validate": "memplan.cli.validate",
    "models": "memplan.cli.catalogue",
    "methods": "memplan.cli.catalogue",
    "gpus": "memplan.cli.catalogue",
}
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit: 0 done, 1 does not fit, 2 bad input, 3 something is missing."""
    try:
        code = run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except MemplanError as error:
        code = _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = _complain("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        code = _leave_closed_pipe()
    sys.exit(code)


def run(words: list[str]) -> int:
    """Run one command line and return its exit code; what went wrong is raised."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that cannot show a sign shows "?"
    name, rest = (words[0], words[1:]) if words else (HELP_FLAGS[0], [])
    if name in HELP_FLAGS:
        return _help(HOMES, PROGRAM)
    if name == "--version":
        sys.stdout.write(f"{PROGRAM} {__version__}\n")
        return 0
    if name not in HOMES:
        kind, known = ("flag", ("--help", "--version")) if name[:1] == "-" else ("command", HOMES)
        raise unknown(kind, name, known, program=PROGRAM)
    program = f"{PROGRAM} {name}"
    own = rest[: rest.index("--")] if "--" in rest else rest  # what follows is another program's
    if any(flag in own for flag in HELP_FLAGS):
        return _help((name,), program)
    return find_command(name).run(rest, program=program)


def find_command(name: str) -> Command:
    """The command of that name; no other one is loaded."""
    commands: dict[str, Command] = import_module(HOMES[name]).COMMANDS
    return commands[name]


def _help(names: Iterable[str], program: str) -> int:
    from memplan.cli.help import print_help

    print_help({name: find_command(name) for name in names}, about=ABOUT, program=program)
    return 0


def _complain(message: str, code: int) -> int:
    """One paragraph on stderr."""
    sys.stderr.write(f"{PROGRAM}: {' '.join(message.split())}\n")
    return code


def _leave_closed_pipe() -> int:
    """Nobody reads any more: keep Python from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
