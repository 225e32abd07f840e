"""Optimizer steps on made-up parameters: memplan's here, torch's in record_steps.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.dtypes import DTYPES, FP32, DType
from memplan.engine.kernels import Kernels
from memplan.engine.nn import Linear, Module
from memplan.engine.state import S, run
from memplan.engine.tape import OUTSIDE, Tape
from memplan.engine.tensor import Tensor, empty
from memplan.optimizers import OPTIMIZERS, GradScaler, Optimizer, clip_grad_norm

SHAPES = (
    *((), (1,), (7,), (300,), (4095,), (4096,), (65536,), (65537,), (70001,)),
    *((1000, 8), (513, 129), (64, 64), (400, 250), (100, 999), (300, 301), (129, 1024)),
    (2, 3, 5),
)
DTYPE_MIXES: tuple[tuple[str, ...], ...] = (
    *(("float32",), ("bfloat16",), ("float16",), ("bfloat16", "float32")),
    *(("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float32", "float16")),
)


@dataclass(frozen=True, slots=True)
class Case:
    """Parameters and what is done with them.

    Attributes:
        parameters: (shape, dtype, steps in which it has a gradient) of each.
    """

    optimizer: str
    clips: bool
    scales: bool
    steps: int
    parameters: tuple[tuple[tuple[int, ...], str, tuple[int, ...]], ...]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Case:
        parameters = tuple(
            (tuple(shape), dtype, tuple(steps)) for shape, dtype, steps in record["parameters"]
        )
        return cls(
            record["optimizer"], record["clips"], record["scales"], record["steps"], parameters
        )


def draw(seed: int) -> Case:
    """A random case."""
    r = random.Random(seed)
    steps, mix = r.choice([1, 2, 3]), r.choice(DTYPE_MIXES)
    scales = r.random() < 0.3
    if scales:
        mix = r.choice([("float32",), ("float32",), ("float32", "float16")])
    always = scales or r.random() < 0.5
    parameters = []
    for _ in range(r.choice([1, 1, 2, 3, 5, 8, 20])):
        chance = 1.0 if always else r.choice([0.0, 0.5, 1.0, 1.0, 1.0])
        with_gradient = tuple(i for i in range(steps) if r.random() < chance)
        parameters.append((r.choice(SHAPES), r.choice(mix), with_gradient))
    return Case(r.choice(list(OPTIMIZERS)), r.random() < 0.5, scales, steps, tuple(parameters))


class Made(Module):
    """A model in which each matrix is a linear layer's weight."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        for i, p in enumerate(params):
            if len(p.shape) == 2:
                layer = Linear.__new__(Linear)
                layer.weight = p
                setattr(self, f"m{i}", layer)
            else:
                setattr(self, f"p{i}", p)


def parameter(shape: tuple[int, ...], dtype: DType, *, layer: int = OUTSIDE) -> Tensor:
    p = empty(shape, dtype)
    p.requires_grad, p.layer, p.copies = True, layer, 1
    return p


def events_of(body: Callable[[], object]) -> list[int]:
    """What ``body`` allocates and frees; what it returns is freed too."""
    tape = Tape()
    with run(tape, Kernels()):
        body()
    return tape.events


def sizes(events: Iterable[int]) -> list[int]:
    """The allocations alone. [bytes]"""
    return [e for e in events if e >= 0]


def allocated_in_steps(
    build: Callable[..., Any], number: int, shapes: Sequence[tuple[int, ...]], dtype: DType
) -> list[int]:
    """What an optimizer and its steps allocate; parameters and gradients are left out. [bytes]"""

    def body() -> None:
        S.workspaces[S.thread] = None  # type: ignore[assignment]
        params = [parameter(shape, dtype) for shape in shapes]
        for p in params:
            p.grad = empty(p.shape, p.dtype)
        optimizer = build(params)
        optimizer.look_into(Made(params))
        for _ in range(number):
            optimizer.step()

    return sizes(events_of(body))[2 * len(shapes) :]


def settled(events: Iterable[int]) -> list[int]:
    """Events with each run of frees sorted: the allocator ends in the same state."""
    out: list[int] = []
    frees: list[int] = []
    for event in events:
        if event < 0:
            frees.append(event)
        else:
            out += [*sorted(frees), event]
            frees = []
    return out


def steps(case: Case) -> None:
    """The part of a training loop that comes after backward, with gradients out of thin air.

    cuBLAS has its workspace: in a training loop the forward made it.
    """
    S.workspaces[S.thread] = None  # type: ignore[assignment]
    params = [parameter(shape, DTYPES[dtype]) for shape, dtype, _ in case.parameters]
    optimizer = OPTIMIZERS[case.optimizer](params)
    if optimizer is not None:
        optimizer.look_into(Made(params))
    scaler = GradScaler() if case.scales else None
    for step in range(case.steps):
        for p, (_, _, with_gradient) in zip(params, case.parameters, strict=True):
            if step in with_gradient:
                p.grad = empty(p.shape, p.dtype)
        if scaler is not None:
            scaler.scale(empty((), FP32))
        one_step(params, optimizer, scaler, clips=case.clips)


def one_step(
    params: list[Tensor], optimizer: Optimizer | None, scaler: GradScaler | None, *, clips: bool
) -> None:
    if clips:
        if scaler is not None:
            scaler.unscale_(optimizer)
        clip_grad_norm(params)
    if optimizer is None:
        return
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad()
