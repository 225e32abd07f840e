"""The smallest card of the catalogue that a run fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memplan.allocator.caching import Allocator
from memplan.errors import MemplanError
from memplan.hardware import Device, device_names, load_device
from memplan.results import Estimate
from memplan.running import Run
from memplan.simulation import simulate
from memplan.workload import Workload

AMPERE = (8, 0)
LEAST = 0.9
"""A card with less than this share of a run's peak on an Ampere card or a later one is not tried.

Assumption: from there on all have flash attention, and what else kernels borrow differs by less
than a tenth. A wrong guess names a card one size too large, never one that is too small.
"""


def smallest_gpu(found: Estimate) -> str | None:
    """The name of the smallest card on which the run gets through, if there is one.

    Each card that is tried is simulated as itself: its kernels, its context, its allocator.
    Of cards of one size, the catalogue's order decides.

    Args:
        found: An estimate of the run, on any card or none.
    """
    for device in candidates(least_bytes(found)):
        if fits(found.workload, device):
            return device.name
    return None


def least_bytes(found: Estimate) -> int:
    """What any card must have room for: of a run on an older card, the loaded model. [bytes]"""
    if load_device(found.workload.get("gpu")).compute_capability >= AMPERE:
        return int(LEAST * found.peak_allocated_bytes)
    return found.phases["adapter"].allocated_bytes


def candidates(least: int) -> Iterator[Device]:
    """Cards with room for so many bytes, smallest first."""
    devices = sorted(map(load_device, device_names()), key=lambda d: d.capacity_bytes or 0)
    for device in devices:
        room = (device.capacity_bytes or 0) - device.context_bytes
        if room >= least:
            yield device


def fits(workload: Mapping[str, Any], device: Device) -> bool:
    """Whether the run gets through on a card; one that the card has no kernel for does not."""
    card = Allocator(capacity_bytes=device.capacity_bytes, context_bytes=device.context_bytes)
    try:
        run = Run.of(Workload(**{**workload, "gpu": device.name}))
    except MemplanError:
        return False
    return simulate(run.record(), card).fits
