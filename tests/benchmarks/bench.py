"""Times that users wait for; prints medians and asserts none.

    python tests/benchmarks/bench.py

One warm, exact estimate of a 7B LoRA workload of three steps; a vectorised grid of 100,000 (micro
batch, length) cells; the command line from a cold start beside the imports that it could not do
without. Run it on an idle machine; pin it to one core to compare with others
(``taskset -c 0 python tests/benchmarks/bench.py``).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import memplan

LORA_7B = {"model": "llama-2-7b", "method": "lora", "rank": 8, "seq_len": 2048, "steps": 3}
COLD = {
    "python -c pass": ("-c", "pass"),
    "import numpy, rich, typer": ("-c", "import numpy, rich, typer"),
    "memplan estimate": (
        *("-m", "memplan", "estimate", "--model", "7b", "--method", "lora", "--rank", "8"),
    ),
}


def median_seconds(task: Callable[[], object], repeats: int) -> float:
    """Median time of a task after one run that warms it up. [seconds]"""
    task()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def estimate_seconds(repeats: int = 15) -> dict[str, float]:
    """Warm, exact estimates of a 7B model. [seconds]"""
    full = LORA_7B | {"method": "full", "activation_checkpointing": True}
    del full["rank"]
    cases = {
        "7B LoRA r8, 3 steps": LORA_7B,
        "7B LoRA r8 nf4-dq, 3 steps": LORA_7B | {"quantization": "nf4-dq"},
        "7B full, checkpointing, 3 steps": full,
    }
    return {
        name: median_seconds(lambda case=case: memplan.estimate(**case), repeats)  # type: ignore[misc]
        for name, case in cases.items()
    }


def grid_seconds(repeats: int = 3) -> dict[str, float]:
    """A grid of 100 micro batches and 1,000 lengths in one call. [seconds]"""
    axes = {"micro_batch_size": list(range(1, 101)), "seq_len": list(range(8, 8008, 8))}
    grid = LORA_7B | axes
    return {"grid of 100,000 cells": median_seconds(lambda: memplan.sweep(**grid), repeats)}


def cold_seconds(repeats: int = 11) -> dict[str, float]:
    """Commands from a cold start, in turns, so that all share the load. [seconds]"""
    times: dict[str, list[float]] = {name: [] for name in COLD}
    for _ in range(repeats):
        for name, command in COLD.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    return {f"cold: {name}": statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print a line for each."""
    for part in (estimate_seconds, cold_seconds, grid_seconds):
        for name, seconds in part().items():
            sys.stdout.write(f"{name:44} {seconds * 1e3:9.1f} ms\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
