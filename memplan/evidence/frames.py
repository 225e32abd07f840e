"""What the stack of an allocation tells: who asked, for which operator, from which line of Python.

A stack is torch's own: a list of ``{"filename", "line", "name"}``, innermost first. Python's
frames end in ``.py``; how C++ frames stand between them is not to be relied on, since one C frame
runs many Python frames. Autograd's own thread has Python frames only where a node is in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memplan.categories import BASE, BUCKETS, OTHER, SHARDS, WORKSPACE

Frame = Mapping[str, Any]
ADAPTER = "adapter"
OPTIMIZER = "optimizer"

# Source: pytorch/pytorch v2.14.1 aten/src/ATen/cuda/CublasHandlePool.cpp: the functions that ask
# for a handle's workspace.
WORKSPACE_NAMES = (
    "setWorkspaceForHandle",
    "getCUDABlasLtWorkspace",
    "getNewWorkspace",
    "getCurrentCUDABlasHandle",
)
OPERATOR = re.compile(r"at::_ops::(\w+)::call")
NODE = re.compile(
    r"torch::autograd::(?:generated::)?(\w*(?:Backward\d*|AccumulateGrad|CopySlices))"
)
# Source: pytorch/pytorch v2.14.1 torch/utils/checkpoint.py
# `_checkpoint_without_reentrant_generator` and `CheckpointFunction.backward`: both rerun it.
RECOMPUTES = ("recompute_fn", "backward")
INTERPRETER = ("Objects/", "Python/", "pycore_", "Modules/main")
DULL = (
    *("torch/nn/modules/module.py", "torch/utils/_contextlib.py", "torch/autograd/"),
    *("torch/_tensor.py", "torch/utils/checkpoint.py", "torch/_ops.py", "/memplan/evidence/"),
    *("torch/optim/optimizer.py", "torch/utils/_device.py", "<string>", "<frozen"),
)


def python_frames(frames: Iterable[Frame]) -> list[Frame]:
    """The frames of Python, innermost first."""
    return [f for f in frames if f["filename"].endswith(".py")]


def is_workspace(frames: Iterable[Frame]) -> bool:
    """Whether a library's handle asked for its workspace."""
    return any(name in f["name"] for f in frames for name in WORKSPACE_NAMES)


def is_backward_work(frames: Iterable[Frame]) -> bool:
    """Whether, in a backward, a node asked: not a forward that checkpointing runs again."""
    python = python_frames(frames)
    for f in python:
        if f["name"] == "_engine_run_backward":
            return True
        if f["filename"].endswith("torch/utils/checkpoint.py") and f["name"] in RECOMPUTES:
            return False
    return not any(f["name"] == "<module>" for f in python)


def source_of(frames: Sequence[Frame]) -> str:
    """Who asked: in the words of ``categories``, or PEFT's ``adapter``, or an ``optimizer``.

    What a forward or a backward asked for is ``other`` here: the phase tells it.
    """
    if is_workspace(frames):
        return WORKSPACE
    python = python_frames(frames)
    if any(f["name"] == "prepare_model_for_kbit_training" for f in python):
        return BASE
    if python and (parallel := parallel_source(python[0]["filename"])):
        return parallel
    for f in python:
        path = f["filename"]
        if "/torch/optim/" in path or "/bitsandbytes/optim/" in path:
            return OPTIMIZER
        if "/peft/" in path:
            return ADAPTER
    return OTHER


def parallel_source(path: str) -> str:
    """What keeps a model on several devices, if the line that asked is in this file of torch."""
    if "/torch/distributed/fsdp/" in path:
        return SHARDS
    return BUCKETS if path.endswith("/torch/nn/parallel/distributed.py") else ""


def op_of(frames: Sequence[Frame]) -> str:
    """The operator that asked: a node of autograd, else what Python called, else the function.

    Example:
        >>> names = "at::_ops::mm::call(at::Tensor)", "at::_ops::linear::call(at::Tensor)"
        >>> op_of([{"filename": "x.cpp", "line": 0, "name": name} for name in names])
        'linear'
    """
    op = ""
    for f in frames:
        name = f["name"]
        if f["filename"].endswith(".py") or any(x in f["filename"] for x in INTERPRETER):
            break
        node = NODE.search(name)
        if node:
            return node.group(1)
        found = OPERATOR.search(name)
        op = found.group(1) if found else op
    return op or next((f["name"] for f in interesting(frames)), "")


def line_of(frames: Iterable[Frame]) -> str:
    """The line that asked, as ``folder/file.py:12 function``; empty where no Python was running."""
    for f in interesting(frames):
        path = "/".join(f["filename"].split("/")[-2:])
        return f"{path}:{f['line']} {f['name']}"
    return ""


def interesting(frames: Iterable[Frame]) -> list[Frame]:
    """Frames of Python that are not torch's way of getting there."""
    return [f for f in python_frames(frames) if not any(x in f["filename"] for x in DULL)]
