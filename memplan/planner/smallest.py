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

LEAST = 0.9
"""A card with less than this share of a run's peak is not tried: kernels of another architecture
borrow less, but no tenth."""


def smallest_gpu(found: Estimate) -> str | None:
    """The name of the smallest card on which the run gets through, if there is one.

    Each card that is tried is simulated as itself: its kernels, its context, its allocator.
    Of cards of one size, the catalogue's order decides.

    Args:
        found: An estimate of the run, on any card or none.
    """
    for device in candidates(found.peak_allocated_bytes):
        if fits(found.workload, device):
            return device.name
    return None


def candidates(peak_allocated_bytes: int) -> Iterator[Device]:
    """Cards that might do, smallest first."""
    devices = sorted(map(load_device, device_names()), key=lambda d: d.capacity_bytes or 0)
    for device in devices:
        room = (device.capacity_bytes or 0) - device.context_bytes
        if room >= LEAST * peak_allocated_bytes:
            yield device


def fits(workload: Mapping[str, Any], device: Device) -> bool:
    """Whether the run gets through on a card; one that the card has no kernel for does not."""
    card = Allocator(capacity_bytes=device.capacity_bytes, context_bytes=device.context_bytes)
    try:
        run = Run.of(Workload(**{**workload, "gpu": device.name}))
    except MemplanError:
        return False
    return simulate(run.record(), card).fits
