"""A stream of allocator events as a count and a digest for each part of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from memplan.engine.kernels import Kernels
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import EMPTY_CACHE, Tape
from memplan.hardware import load_device
from memplan.models.config import load_model_config
from memplan.training import train
from memplan.workload import Workload
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


def own(record: Json) -> Iterator[Raw]:
    """memplan's events of the record's workload, every layer and every step run."""
    workload, _ = Workload.resolve({"loop": "plain", **record["workload"]})
    config, device = load_model_config(workload.model), load_device(workload.gpu)
    kernels = Kernels(**{f.name: getattr(device, f.name) for f in fields(Kernels)})
    with run(Tape(), kernels) as tape:
        model = train(workload, config, Depth.unrolled(config.num_hidden_layers), workload.steps)
        events = tape.events[:]  # what dies from here on is not of the run
        del model
    marks = [mark for mark in tape.phases if mark.name != EMPTY_CACHE]
    phase = 0
    for i, e in enumerate(events):
        while phase < len(marks) - 1 and marks[phase].end <= i:
            phase += 1
        nbytes = e if e >= 0 else events[~e]
        if nbytes:  # a block of no bytes does not reach the allocator
            yield Raw(e < 0, i if e >= 0 else ~e, nbytes, marks[phase].name)
