"""What a command takes, and how it is read from the words on the command line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memplan.errors import ConfigError, UnknownNameError

HELP_FLAGS = ("--help", "-h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a command.

    Attributes:
        name: The command's parameter.
        flag: How it is written.
        help: What it does, for ``--help``.
        metavar: What its value is called; empty for a switch, which takes none.
        alone: The text that it means without a value, and then there is a ``--no-`` form that
            means false; empty if a value is needed.
        hidden: Left out of ``--help``.
    """

    name: str
    flag: str
    help: str
    metavar: str = ""
    alone: str = ""
    hidden: bool = False

    @property
    def negation(self) -> str:
        """The flag that means false."""
        return f"--no-{self.flag[2:]}"


def read_options(
    args: Iterable[str], options: Iterable[Option], *, program: str
) -> dict[str, str | bool]:
    """The value of each option that was given: its text, or True for a switch.

    Raises:
        ConfigError: A flag is unknown or lacks its value, or a word is no flag's value.
    """
    options = list(options)
    by_flag = {option.flag: option for option in options}
    negated = {option.negation: option.name for option in options if option.alone}
    words = deque(args)
    given: dict[str, str | bool] = {}
    while words:
        flag, equals, value = words.popleft().partition("=")
        if flag in negated and not equals:
            given[negated[flag]] = "false"
        elif flag not in by_flag:
            raise _unexpected(flag, by_flag, program)
        elif by_flag[flag].metavar:
            option = by_flag[flag]
            given[option.name] = value if equals else _next_value(option, words, program)
        elif equals:
            raise ConfigError(f"{flag} takes no value. See {program} --help.")
        else:
            given[by_flag[flag].name] = True
    return given


def _next_value(option: Option, words: deque[str], program: str) -> str:
    """The word after a flag, which may be a negative number but no other flag."""
    if words and not words[0].startswith("--"):
        return words.popleft()
    if option.alone:
        return option.alone
    raise ConfigError(f"{option.flag} needs a value. See {program} --help.")


def _unexpected(word: str, known: Iterable[str], program: str) -> ConfigError:
    if word.startswith("-"):
        return unknown("flag", word, known, program=program)
    return ConfigError(f"unexpected argument {word[:80]!r}. See {program} --help.")


def unknown(kind: str, name: str, known: Iterable[str], *, program: str) -> UnknownNameError:
    """An error for a flag or command that does not exist, with the nearest one that does."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name[:80]!r}.{hint} See {program} --help.")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the function whose docstring is its help, what it takes, and an example."""

    function: Any
    options: tuple[Option, ...]
    example: str

    def run(self, words: Iterable[str], *, program: str) -> int:
        """Run it with ``words`` and return its exit code."""
        return int(self.function(**read_options(words, self.options, program=program)) or 0)
