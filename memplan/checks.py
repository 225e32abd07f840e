"""Checks of single values that a user gave: each returns the value in its plain Python type."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from memplan.errors import ConfigError


def integer(value: Any, name: str, *, minimum: int, maximum: int, why: str = "") -> int:
    """``value`` as an int within bounds; NumPy's integers too, booleans and floats not."""
    number = _index(value)
    if number is None:
        raise ConfigError(f"{name}: expected an integer >= {minimum}, got {_shown(value)}.")
    if number < minimum:
        raise ConfigError(f"{name}: expected an integer >= {minimum}, got {_shown(number)}.")
    if number > maximum:
        reason = f" ({why})" if why else ""
        raise ConfigError(f"{name}: {_shown(number)} is above {maximum:,}{reason}.")
    return number


def number(value: Any, name: str, *, minimum: float = -math.inf) -> float:
    """``value`` as a finite float, not below ``minimum``."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ConfigError(f"{name}: expected a number, got {_shown(value)}.")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name}: expected a number, got {_shown(value)}.") from None
    if not math.isfinite(result) or result < minimum:
        bound = "" if minimum == -math.inf else f" >= {minimum:g}"
        raise ConfigError(f"{name}: expected a finite number{bound}, got {_shown(value)}.")
    return result


def flag(value: Any, name: str) -> bool:
    """``value`` as a bool; nothing else passes for one."""
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{name}: expected true or false, got {_shown(value)}.")


def text(value: Any, name: str) -> str:
    """``value`` if it is text that is not empty."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ConfigError(f"{name}: expected a name, got {_shown(value)}.")


def names(value: Any, name: str) -> tuple[str, ...]:
    """A tuple of distinct names from a list, or from text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable) or isinstance(items, (bytes, dict)):
        raise ConfigError(f"{name}: expected a list of names, got {_shown(value)}.")
    return tuple(dict.fromkeys(text(item, name) for item in items))


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _shown(value: Any) -> str:
    """Short ``repr`` for an error; one line, and safe for integers of any length."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "an integer of more than 77 digits"
    try:
        shown = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # nested too deep; an integer too long to print
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else shown[:77] + "..."
