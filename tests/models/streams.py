"""A stream of allocator events as a count and a digest for each part of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from tests.evidence.events import PARTS, Event, Raw, named, settled, without_teardown

Json = dict[str, Any]

AFTER_LOAD = PARTS[1:]
"""Loading has records of its own; a checkpoint's order may be chance."""
KINDS = {"alloc": False, "free_completed": True}


def summary(events: Iterable[Raw]) -> Json:
    """For each part: how many events, and the digest of them with runs of frees in one order."""
    run = without_teardown(list(named(events)))
    return {part: digest(settled(e for e in run if e.part == part)) for part in AFTER_LOAD}


def digest(events: list[Event]) -> list[Any]:
    """(number of events, 16 hexadecimal digits)."""
    text = "".join(f"{e.key}\n" for e in events)
    return [len(events), hashlib.sha256(text.encode()).hexdigest()[:16]]


def raw(events: Iterable[tuple[str, int, int, str, str]]) -> Iterable[Raw]:
    """Events as ``measure.py`` pickles them."""
    for action, address, nbytes, phase, _ in events:
        if action in KINDS:
            yield Raw(KINDS[action], address, nbytes, phase)
