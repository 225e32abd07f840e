"""torch's counters, phase by phase, without taking them from the program that is watched."""

from __future__ import annotations

from typing import Any

from memplan.evidence.recording import PhaseCounters

KINDS = ("requested_bytes", "allocated_bytes", "reserved_bytes")
PEAKS = tuple(f"{kind}.all.peak" for kind in KINDS)


class Counters:
    """Peaks since the last phase; the watched program still sees those since its own last reset."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], int] = {}
        self.kept: dict[str, int] = {}
        self._read: Any = None
        self._reset: Any = None

    def share(self) -> None:
        """Let the program and the recorder each have their own peaks.

        Source: pytorch/pytorch v2.14.1 torch/cuda/memory.py: every function that tells or resets
        peaks goes through these two.
        """
        import torch

        self._read, self._reset = torch._C._cuda_memoryStats, torch._C._cuda_resetPeakMemoryStats
        torch._C._cuda_memoryStats = self._told
        torch._C._cuda_resetPeakMemoryStats = self._forget

    def _told(self, device: int) -> Any:
        """The statistics with the peaks that the program would see without a recorder."""
        stats = self._read(device)
        for name, values in _peaks(stats):
            values["peak"] = max(values["peak"], self.seen.get((device, name), 0))
        return stats

    def _forget(self, device: int) -> None:
        """The program resets its peaks: those of the phase so far stay known here."""
        for name, values in _peaks(self._read(device)):
            self.kept[name] = max(self.kept.get(name, 0), values["peak"])
        self.seen = {key: peak for key, peak in self.seen.items() if key[0] != device}
        self._reset(device)

    def end_phase(self, name: str, step: int) -> PhaseCounters:
        """The counters of the phase that ends here; peaks start anew."""
        import torch

        if not torch.cuda.is_initialized():
            return PhaseCounters(name, step, 0, 0, 0, 0, 0, 0)
        torch.cuda.synchronize()
        device = torch.cuda.current_device()
        read = self._read or torch._C._cuda_memoryStats
        reset = self._reset or torch._C._cuda_resetPeakMemoryStats
        stats = read(device)
        for key, values in _peaks(stats):
            self.seen[device, key] = max(self.seen.get((device, key), 0), values["peak"])
        peaks = [max(stats[k]["all"]["peak"], self.kept.get(f"{k}.all", 0)) for k in KINDS]
        now = [stats[k]["all"]["current"] for k in KINDS]
        self.kept = {}
        reset(device)
        return PhaseCounters(name, step, *peaks, *now)


def _peaks(stats: dict[str, Any]) -> Any:
    """Every counter that has a peak, by its name."""
    for kind, pools in stats.items():
        if isinstance(pools, dict):
            for pool, values in pools.items():
                if isinstance(values, dict) and "peak" in values:
                    yield f"{kind}.{pool}", values
