"""Every error that memplan raises on purpose, with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 48


class MemplanError(Exception):
    """Base of all errors; one paragraph that says what, where and what to do."""

    exit_code = 2


class ConfigError(MemplanError):
    """A workload, model config or file that cannot be used as it stands."""


class UnknownNameError(ConfigError):
    """A name that nothing is registered under; names the nearest known one."""


class UnsupportedError(ConfigError):
    """Something real that memplan does not model yet; never a silent zero."""


class MissingError(MemplanError):
    """Something that this machine lacks: torch, a GPU, an interpreter that counts references."""

    exit_code = 3


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """An error for ``name`` with the nearest known one; lists the known if they are few."""
    names = sorted(known)
    near = get_close_matches(str(name).lower(), [n.lower() for n in names], n=6, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = f"Known: {', '.join(names)}."
    if len(names) > MAX_LISTED:
        others = f" Near: {', '.join(near[1:])}." if near[1:] else ""
        listed = f"{len(names)} names are known.{others}"
    return UnknownNameError(f"unknown {kind} {str(name)[:80]!r}.{hint} {listed}")
