"""Measure workloads with the real libraries on the CUDA device that torch has.

    PYTHON tests/evidence/measure.py < workloads.jsonl

Reads one workload a line (the keys of ``memplan.Workload``, the model a mapping of Hugging Face
config keys) and writes one JSON line for each, measured in a process of its own. A phase is a list
of byte counts in the order of ``COLUMNS``. With ``--events DIR`` every event of the allocator is
also written there, as a pickle.

The loop is the product's ``loop: plain`` (``memplan.evidence.runner``). Peaks are over the training
steps; ``load`` has its own.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.evidence.runner.loops import attention_kernel, train_plain
from memplan.workload import DEFAULTS, KEYS
from tests.evidence.history import start_history, write_history

Json = dict[str, Any]

COLUMNS = (
    "peak_requested", "peak_allocated", "peak_reserved", "requested", "allocated", "reserved",
)  # fmt: skip
LAST_PHASE = "zero_grad"


class Phases:
    """Statistics of the allocator at the end of each phase, and their maximum over the training."""

    def __init__(self, out: Json) -> None:
        self.out = out
        self.top = [0, 0, 0]
        self.ends: list[tuple[str, int]] = []
        self.step: Json = {}
        self.trains = False

    def end_phase(self, name: str, step: int) -> None:
        """Write this phase's ``COLUMNS`` and start the next one."""
        if step and not self.trains:
            self.trains, self.top = True, [0, 0, 0]
        columns = self.read(name)
        if not step:
            self.out["phases"][name] = columns
            return
        self.step[name] = columns
        if name == LAST_PHASE:
            self.out["steps"].append(list(self.step.values()))
            self.step = {}

    def read(self, name: str) -> list[int]:
        """The counters now; the peaks start anew."""
        import torch.cuda as device

        device.synchronize()
        stats = device.memory_stats()
        kinds = ("requested_bytes", "allocated_bytes", "reserved_bytes")
        peaks = [stats[f"{kind}.all.peak"] for kind in kinds]
        self.top = [max(pair) for pair in zip(self.top, peaks, strict=True)]
        self.ends.append((name, stats["allocation.all.allocated"]))
        device.reset_peak_memory_stats()
        return peaks + [stats[f"{kind}.all.current"] for kind in kinds]

    def install_hooks(self, model: Any) -> None:
        """Only the plain loop is measured here, which marks its phases."""
        raise NotImplementedError

    def end_evaluation(self) -> None:
        """The plain loop evaluates nothing."""
        raise NotImplementedError


def device_facts() -> Json:
    """The device, as torch sees it."""
    import torch

    p = torch.cuda.get_device_properties(0)
    facts = {"name": p.name, "capability": f"{p.major}.{p.minor}", "total_bytes": p.total_memory}
    return facts | {"free_bytes": torch.cuda.mem_get_info(0)[0]}


def versions() -> Json:
    """The libraries that decide the numbers."""
    from importlib.metadata import version

    return {p: version(p) for p in ("torch", "transformers", "peft", "bitsandbytes")}


def measure(workload: Json, events: Path | None = None) -> Json:
    """What the allocator saw of one workload; ``error`` says why a run stopped."""
    unknown = set(workload) - set(KEYS)
    if unknown:
        raise SystemExit(f"keys that no workload has: {sorted(unknown)}")
    keys = {**DEFAULTS, **workload}  # not checked: what the libraries refuse, they say themselves
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.cuda.init()
    out: Json = {"error": None, "phases": {}, "steps": [], "device": device_facts()}
    out["versions"] = versions()
    if events:
        start_history()
    phases = Phases(out)
    try:
        with attention_kernel(keys):
            model = train_plain(keys, workload["model"], phases)
        params = list(model.parameters())
        out["num_parameters"] = sum(p.numel() for p in params)
        out["num_trainable_parameters"] = sum(p.numel() for p in params if p.requires_grad)
    except torch.OutOfMemoryError as e:
        out["error"] = "out of memory"
        e.__traceback__ = None
        phases.read("out_of_memory")
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as e:
        out["error"] = f"refused: {type(e).__name__}: {e}"[:300]
    out["peak"] = phases.top
    if events:
        write_history(events, phases.ends)
    return out


def measure_in_child(line: str, events: Path | None) -> None:
    """Fork, measure, print. The parent has the libraries loaded and no device open."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stdout.write(json.dumps(measure(json.loads(line), events)) + "\n")
            sys.stdout.flush()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        sys.stdout.write(json.dumps({"error": f"crashed: status {status}"}) + "\n")


def main() -> None:
    """Measure each line of the input."""
    import transformers.models.llama.modeling_llama
    import transformers.models.mistral.modeling_mistral
    import transformers.models.qwen2.modeling_qwen2
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    folder = Path(sys.argv[2]) if sys.argv[1:2] == ["--events"] else None
    for number, line in enumerate(sys.stdin):
        measure_in_child(line, folder / f"{number}.pkl" if folder else None)


if __name__ == "__main__":
    main()
