"""What ``--help`` prints: the commands handed to typer, which lays the text out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.main import get_command

from memplan.cli.options import HELP_FLAGS, Command, Option

SETTINGS: dict[str, Any] = {"help_option_names": list(HELP_FLAGS)}


def print_help(commands: Mapping[str, Command], *, about: str, program: str) -> None:
    """Print the help of one command, or of the program that has several."""
    app = typer.Typer(
        help=about,
        epilog=f"Example: {next(iter(commands.values())).example}",
        add_completion=False,
        rich_markup_mode=None,
        context_settings=SETTINGS,
    )
    for name, command in commands.items():
        epilog = f"Example: {command.example}"
        app.command(name, epilog=epilog, context_settings=SETTINGS)(_declared(command))
    get_command(app).main([HELP_FLAGS[0]], prog_name=program, standalone_mode=False)


def _declared(command: Command) -> Any:
    """A function with the command's docstring and a typer parameter for each of its options."""

    def function() -> None:
        """Take the place of the command: only its declaration is read."""

    declared: Any = function
    parameters = [_parameter(option) for option in command.options]
    declared.__doc__ = command.function.__doc__
    declared.__signature__ = inspect.Signature(parameters)
    declared.__annotations__ = {p.name: p.annotation for p in parameters}
    return declared


def _parameter(option: Option) -> inspect.Parameter:
    hints: dict[str, Any] = {"help": option.help, "hidden": option.hidden}
    kind: Any = Annotated[bool, typer.Option(option.flag, **hints)]
    default: Any = False
    if option.metavar:
        kind = Annotated[str | None, typer.Option(option.flag, metavar=option.metavar, **hints)]
        default = None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )
