"""Every event of torch's allocator, with the functions and lines that asked for each block."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def start_history() -> None:
    """Have torch keep every event of its allocator, with the stacks of the allocations."""
    import torch

    torch.cuda.memory._record_memory_history(max_entries=10_000_000, stacks="all", context="alloc")


DULL_FILES = (
    "torch/nn/modules/module.py", "torch/utils/_contextlib", "torch/autograd/", "torch/_tensor.py",
    "evidence/measure.py",
)  # fmt: skip
DULL_NAMES = (
    "c10::", "CUDACachingAllocator", "std::", "CapturedTraceback", "at::detail::", "torch::unwind",
    "wrapper_", "Wrapper", "dispatch", "_Py", "Py_", "PyObject", "PyVector", "PyRun", "pymain",
    "pyrun", "cfunction", "vectorcall", "clone", "start_thread", "_start", "__libc", "call_impl",
    "torch::gather", "at::native::empty_cuda", "at::empty(", "at::_ops", "at::native::resize",
    "type_call", "run_mod", "slot_tp", "THPVariable", "TensorIteratorBase", "torch::cuda",
    "structured_", "at::(anon", "do_call_core", "callmethod", "run_eval",
)  # fmt: skip


def origin(event: Json) -> str:
    """The C++ functions and Python lines that asked for a block, innermost first."""
    python, native = [], []
    for frame in event.get("frames", ()):
        file, name = frame["filename"], frame["name"]
        if file.endswith(".py"):
            if not any(x in file for x in DULL_FILES):
                python.append(f"{file.rpartition('/')[2]}:{frame['line']} {name}")
        else:
            name = name.split("(")[0].replace("(anonymous namespace)", "anon")
            if not any(x in name for x in DULL_NAMES):
                native.append(name[-60:])
    return " < ".join(native[:5]) + " || " + " < ".join(python[:4])


def write_history(path: Path, ends: list[tuple[str, int]]) -> None:
    """Write ``[(action, address, bytes, phase, origin)]``; phases end by allocations so far."""
    import torch

    events, count, phase = [], 0, 0
    names = [*ends, ("after", sys.maxsize)]
    for e in torch.cuda.memory._snapshot()["device_traces"][0]:
        if e["action"] not in ("alloc", "free_completed"):
            continue
        count += e["action"] == "alloc"
        while count > names[phase][1]:
            phase += 1
        where = origin(e) if e["action"] == "alloc" else ""
        events.append((e["action"], e["addr"], e["size"], f"{phase} {names[phase][0]}", where))
    path.write_bytes(pickle.dumps(events))
