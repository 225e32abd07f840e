"""The program ``memplan``: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from memplan import __version__
from memplan.errors import ConfigError, MemplanError

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE
HELP: dict[str, Any] = {"help_option_names": ["--help", "-h"]}
ABOUT = "GPU memory of LLM fine-tuning, to the byte, before you rent a GPU."
COMMANDS = {  # name: the module that has it, as NAME_command
    "estimate": "memplan.cli.estimate",
    "compare": "memplan.cli.compare",
    "models": "memplan.cli.catalogue",
    "methods": "memplan.cli.catalogue",
    "gpus": "memplan.cli.catalogue",
}
EXAMPLES = {
    "": "memplan estimate --model 7b --method lora --rank 8 --gpu a10g",
    "estimate": "memplan estimate --model 7b --method lora --rank 8 --gpu a10g",
    "compare": "memplan compare --model 7b --methods full,lora --ranks 4,16 --gpu a10g",
    "models": "memplan models --json",
    "methods": "memplan methods",
    "gpus": "memplan gpus",
}


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
    if words == ["--version"]:
        sys.stdout.write(f"memplan {__version__}\n")
        return 0
    if words and words[0] in COMMANDS:
        return _invoke(words[:1], words[1:], f"memplan {words[0]}")
    if words and not words[0].startswith("-"):
        from memplan.cli.parsing import unknown

        raise unknown("command", words[0], COMMANDS, program="memplan")
    return _invoke(COMMANDS, words or ["--help"], "memplan")


def _invoke(names: Iterable[str], words: list[str], program: str) -> int:
    """Build the named commands, and no others, and run ``words`` with them."""
    from typer import Abort
    from typer.main import get_command

    try:
        code = get_command(build_app(names)).main(words, prog_name=program, standalone_mode=False)
    except Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        raise _as_own(error, program) from None
    return code if isinstance(code, int) else 0


def build_app(names: Iterable[str]) -> typer.Typer:
    """A typer application with some of the commands."""
    import typer

    from memplan.cli.parsing import TextCommand

    app = typer.Typer(
        help=ABOUT,
        epilog=f"Example: {EXAMPLES['']}",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )
    for name in names:
        function = getattr(import_module(COMMANDS[name]), f"{name}_command")
        epilog = f"Example: {EXAMPLES[name]}"
        app.command(name, cls=TextCommand, epilog=epilog, context_settings=HELP)(function)
    return app


def _as_own(error: Exception, program: str) -> Exception:
    """A mistake that typer found as one of our errors; anything else as it is."""
    message = getattr(error, "format_message", None)
    if message is None:
        return error
    return ConfigError(f"{' '.join(str(message()).split())} See {program} --help.")


def _complain(message: str, code: int) -> int:
    """One paragraph on stderr."""
    sys.stderr.write(f"memplan: {' '.join(message.split())}\n")
    return code


def _leave_closed_pipe() -> int:
    """Nobody reads any more: keep Python from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
