"""Commands whose options stay text, and whose mistakes become one paragraph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand

from memplan.cli.flags import SWITCHES, flag_name
from memplan.errors import ConfigError, UnknownNameError

HELP_FLAGS = ("--help", "-h")
# Flags of workload keys that may stand alone (true), or as --no-... (false).
OPTIONAL_VALUE = {flag_name(key): key for key in SWITCHES}


class TextCommand(TyperCommand):
    """A command that takes its options as the text that was typed.

    typer builds a validator for each option (0.29 loads pydantic for that), which takes longer
    than the estimate. All options here are text or switches, so there is nothing to convert.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fill ``ctx.params`` from ``args``; help goes typer's own way."""
        if any(flag in args for flag in HELP_FLAGS) or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        params = [param for param in self.get_params(ctx) if param.expose_value and param.name]
        given = read_options(args, params, program=ctx.command_path)
        for param in params:
            ctx.params[str(param.name)] = given.get(str(param.name), param.default)
        return []


def read_options(args: Iterable[str], params: Iterable[Any], *, program: str) -> dict[str, Any]:
    """The value of each option that was given: its text, or True for a switch.

    Raises:
        ConfigError: A flag is unknown or lacks its value, or a word is no flag's value.
    """
    by_flag = {flag: param for param in params for flag in param.opts}
    words = deque(args)
    given: dict[str, Any] = {}
    while words:
        flag, equals, value = words.popleft().partition("=")
        if flag.startswith("--no-") and "--" + flag[5:] in OPTIONAL_VALUE:
            flag, equals, value = "--" + flag[5:], "=", "false"
        if flag not in by_flag:
            raise _unexpected(flag, by_flag, program)
        param = by_flag[flag]
        if getattr(param, "is_flag", False):
            if equals:
                raise ConfigError(f"{flag} takes no value. See {program} --help.")
            given[param.name] = True
        else:
            given[param.name] = value if equals else _next_value(flag, words, program)
    return given


def _next_value(flag: str, words: deque[str], program: str) -> str:
    """The word after a flag, which may be a negative number but no other flag."""
    if words and not words[0].startswith("--"):
        return words.popleft()
    if flag in OPTIONAL_VALUE:
        return "true"
    raise ConfigError(f"{flag} needs a value. See {program} --help.")


def _unexpected(word: str, known: Iterable[str], program: str) -> ConfigError:
    if word.startswith("-"):
        return unknown("flag", word, known, program=program)
    return ConfigError(f"unexpected argument {word[:80]!r}. See {program} --help.")


def unknown(kind: str, name: str, known: Iterable[str], *, program: str) -> UnknownNameError:
    """An error for a flag or command that does not exist, with the nearest one that does."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name[:80]!r}.{hint} See {program} --help.")
