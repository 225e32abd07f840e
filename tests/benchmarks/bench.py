"""Times that users wait for; prints medians and asserts none.

    python tests/benchmarks/bench.py

One warm, exact estimate of a 7B LoRA workload of three steps; a vectorised grid of 100,000 (micro
batch, length) cells; the command line from a cold start beside the imports that any such tool has.
Wall time is what a user waits for on an idle machine; processor time hardly minds a busy one.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import memplan

Json = dict[str, Any]

LORA_7B: Json = {"model": "llama-2-7b", "method": "lora", "rank": 8, "seq_len": 2048, "steps": 3}
FULL_7B: Json = {"model": "llama-2-7b", "activation_checkpointing": True, "steps": 3}
GRID: Json = {"micro_batch_size": list(range(1, 101)), "seq_len": list(range(8, 8008, 8))}
AIMS: dict[str, float] = {"7B lora r8": 60, "grid of 100,000 cells": 500}
ESTIMATE = ("-m", "memplan", "estimate", "--model", "7b", "--method", "lora", "--rank", "8")


def run_python(*arguments: str) -> None:
    """A Python from a cold start."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


WARM: dict[str, Callable[[], object]] = {
    "7B lora r8": lambda: memplan.estimate(**LORA_7B),
    "7B lora r8 nf4-dq": lambda: memplan.estimate(**LORA_7B, quantization="nf4-dq"),
    "7B full, checkpointing": lambda: memplan.estimate(**FULL_7B),
}
COLD: dict[str, Callable[[], object]] = {
    "python -c pass": lambda: run_python("-c", "pass"),
    "import numpy, rich, typer": lambda: run_python("-c", "import numpy, rich, typer"),
    "memplan estimate": lambda: run_python(*ESTIMATE),
}
LARGE: dict[str, Callable[[], object]] = {
    "grid of 100,000 cells": lambda: memplan.sweep(**LORA_7B | GRID),
}


def processor_seconds() -> float:
    """Time that this process and its children were on a processor. [seconds]"""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def medians(tasks: dict[str, Callable[[], object]], repeats: int) -> None:
    """Print each task's medians; tasks take turns, so that they share what the machine does."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            wall, processor = time.perf_counter(), processor_seconds()
            task()
            if repeat:  # the first warms up
                spent = time.perf_counter() - wall, processor_seconds() - processor
                times[name].append(spent)
    for name, pairs in times.items():
        wall, processor = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        aim = f"   (aim: {AIMS[name]:.0f} ms)" if name in AIMS else ""
        sys.stdout.write(f"{name:28} {wall:8.1f} ms   {processor:8.1f} ms of processor{aim}\n")
        sys.stdout.flush()


def main() -> None:
    """Print a line for each."""
    medians(WARM, repeats=15)
    medians(COLD, repeats=11)
    medians(LARGE, repeats=3)


if __name__ == "__main__":
    main()
