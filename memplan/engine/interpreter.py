"""Whether this interpreter frees an object when its last reference goes, at that very moment.

The engine's liveness analysis is CPython's reference counting. Where an interpreter defers it
(PyPy, builds without the GIL) the order of frees would be another: then no estimate is better than
one that is wrong.
"""

from __future__ import annotations

import sys
from functools import cache

from memplan.errors import MissingError


@cache
def require_reference_counts() -> None:
    """Refuse an interpreter on which the engine is not exact.

    Raises:
        MissingError: It is not CPython with the GIL, or an object outlived its last reference.
    """
    reason = why_not()
    if reason:
        raise MissingError(
            f"memplan counts bytes by CPython's reference counts, and {reason}. "
            "Use CPython 3.10 to 3.14 with the GIL."
        )


def why_not() -> str:
    """What is wrong with this interpreter; empty if nothing is."""
    if sys.implementation.name != "cpython":
        return f"this is {sys.implementation.name}"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "this build runs without the GIL, which defers them"
    if not frees_at_once():
        return "here an object outlives its last reference (a tracer or debugger may hold frames)"
    return ""


class _Witness:
    """Writes down its own end."""

    def __init__(self, ends: list[str], name: str) -> None:
        self.ends, self.name = ends, name

    def __del__(self) -> None:
        self.ends.append(self.name)


def frees_at_once() -> bool:
    """Whether names and arguments let go when the engine relies on it.

    The order in which a frame's own names go at its return is not relied on (3.14 reversed it): no
    allocation comes between, and frees commute.
    """
    ends: list[str] = []

    def callee(first: _Witness | None, second: _Witness) -> None:
        first = _Witness(ends, "b")  # noqa: F841 - the argument goes as its name is assigned
        local = _Witness(ends, "c")
        del local
        ends.append("returns")

    callee(_Witness(ends, "a"), _Witness(ends, "d"))
    ends.append("returned")
    return ends[:3] == ["a", "c", "returns"] and sorted(ends[3:5]) == ["b", "d"] and len(ends) == 6
