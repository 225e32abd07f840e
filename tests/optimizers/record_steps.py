"""Record what the allocator sees of optimizer steps.

``record_steps.py FIRST LAST OUT.json EVIDENCE``: random cases from seed FIRST up to LAST.

To be run with a CUDA build of torch, bitsandbytes and memplan importable, on the virtual GPU
(EVIDENCE is then ``virtual``) or a real one (``cuda``). A case that torch refuses is kept with the
error that it raises.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict
from typing import Any

from memplan.evidence.runner.optimizers import build_optimizer
from tests.optimizers.steps import Case, draw


def build(name: str, params: list[Any]) -> Any:
    """The runner's optimizer, over a model in which each matrix is a linear layer's weight."""
    import torch

    model = torch.nn.Module()
    for i, p in enumerate(params):
        if p.ndim == 2:
            layer = torch.nn.Linear(1, 1, bias=False)
            layer.weight = p
            model.add_module(f"m{i}", layer)
        else:
            model.register_parameter(f"p{i}", p)
    return build_optimizer({"optimizer": name, "method": "full", "optim_args": {}}, model, params)


def steps(case: Case) -> None:
    """The loop of ``tests.optimizers.steps.steps``, in torch."""
    import torch

    params = [
        torch.nn.Parameter(torch.empty(shape, dtype=getattr(torch, dtype), device="cuda"))
        for shape, dtype, _ in case.parameters
    ]
    optimizer = build(case.optimizer, params)
    scaler = torch.amp.GradScaler("cuda") if case.scales else None
    for step in range(case.steps):
        for p, (_, _, with_gradient) in zip(params, case.parameters, strict=True):
            if step in with_gradient:
                p.grad = torch.empty(p.shape, dtype=p.dtype, device="cuda")
        if scaler is not None:
            scaler.scale(torch.empty((), device="cuda"))
        one_step(params, optimizer, scaler, clips=case.clips)


def one_step(params: list[Any], optimizer: Any, scaler: Any, *, clips: bool) -> None:
    import torch

    if clips:
        if scaler is not None:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
    if optimizer is None:
        return
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)


def record(case: Case) -> dict[str, Any]:
    """The case, and its events as a ``Tape`` has them."""
    import torch

    gc.collect()
    torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python", context=None)
    error = None
    try:
        steps(case)
    except (RuntimeError, ValueError, AssertionError, AttributeError) as e:
        error = f"{type(e).__name__}: {e}"
        e.__traceback__ = None
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(enabled=None)
    return {**asdict(case), "error": error, "events": [] if error else tape_events(trace)}


def tape_events(trace: list[dict[str, Any]]) -> list[int]:
    number, events = {}, list[int]()
    for entry in trace:
        if entry["action"] == "alloc":
            number[entry["addr"]] = len(events)
            events.append(entry["size"])
        elif entry["action"] == "free_completed":
            events.append(~number[entry["addr"]])
    return events


def main(first: int, last: int, path: str, evidence: str) -> None:
    import bitsandbytes
    import torch

    versions = {"torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__}
    header = {"device": torch.cuda.get_device_name(), "evidence": evidence, "versions": versions}
    torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")  # makes cuBLAS' workspace
    cases = [{"seed": seed, **record(draw(seed))} for seed in range(first, last)]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"about": {json.dumps(header)},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
