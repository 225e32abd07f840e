"""The same calls in torch: what it saves, and, on a CUDA device, what it makes and frees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.engine.case import Arg, Case
from tests.engine.observe import FREED_BEFORE, Events, Saved, labels, settled

SAME_BYTES = {"uint64": "int64"}  # memplan has one name for eight bytes that nobody adds up


def torch_arg(a: Arg, device: str) -> Any:
    """The tensor of an argument."""
    import torch

    shape = list(a.shape)
    if a.swap is None:
        return torch.zeros(shape, dtype=getattr(torch, a.dtype), device=device)
    i, j = a.swap
    shape[i], shape[j] = shape[j], shape[i]
    return torch.zeros(shape, dtype=getattr(torch, a.dtype), device=device).transpose(i, j).detach()


def leaves(case: Case, mask: Sequence[bool], device: str) -> list[Any]:
    """The arguments, with and without ``requires_grad``."""
    return [
        torch_arg(a, device).requires_grad_(required)
        for a, required in zip(case.args, mask, strict=True)
    ]


def saved_by_torch(
    case: Case, mask: Sequence[bool], device: str = "cpu"
) -> tuple[bool, list[Saved]]:
    """As ``saved_by_memplan``, seen by ``torch.autograd.graph.saved_tensors_hooks``."""
    import torch

    args, seen = leaves(case, mask, device), []

    def pack(t: Any) -> Any:
        seen.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = case.torch(torch, *args)
    storage = [t.untyped_storage() for t in seen]
    known = {out.untyped_storage().data_ptr(): "out"}
    known |= {a.untyped_storage().data_ptr(): f"arg{i}" for i, a in enumerate(args)}
    names = labels([s.data_ptr() for s in storage], known)
    dtypes = [str(t.dtype).removeprefix("torch.") for t in seen]
    return bool(out.requires_grad), [
        (n, tuple(t.shape), SAME_BYTES.get(d, d), s.nbytes())
        for n, t, d, s in zip(names, seen, dtypes, storage, strict=True)
    ]


def traced(call: Callable[[], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """What a call returns, and what the caching allocator did meanwhile."""
    import torch

    memory = torch.cuda.memory
    memory._record_memory_history(max_entries=1_000_000, stacks="python", context=None)
    try:
        result = call()
    finally:
        trace = memory._snapshot()["device_traces"][0]
        memory._record_memory_history(enabled=None)
    return result, [e for e in trace if e["action"] in ("alloc", "free_completed")]


def events_of_torch(case: Case, mask: Sequence[bool]) -> tuple[Events, Events]:
    """As ``events_of_memplan``, on the CUDA device."""
    import torch

    args = leaves(case, mask, "cuda")
    number: dict[int, int] = {}
    count = 0

    def events(trace: list[dict[str, Any]]) -> Events:
        nonlocal count
        part: Events = []
        for e in trace:
            if e["action"] == "alloc":
                number[e["addr"]], count = count, count + 1
                part.append(e["size"])
            else:
                known = number.get(e["addr"])
                part.append(FREED_BEFORE if known is None else ~known)
        return settled(part)

    out, trace = traced(lambda: case.torch(torch, *args))
    forward, backward = events(trace), []
    if out.grad_fn is not None:
        gradient = torch.zeros_like(out)
        _, trace = traced(lambda: out.backward(gradient))
        backward = events(trace)
    return forward, backward


def warm_up() -> None:
    """Both threads' cuBLAS workspaces, before anything is counted."""
    import torch

    x = torch.zeros(64, 64, device="cuda", requires_grad=True)
    torch.nn.functional.linear(x @ x, x, x[0]).sum().backward()
    torch.bmm(x[None], x[None]).sum().backward()
