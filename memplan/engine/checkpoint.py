"""Activation checkpointing: by saved-tensor hooks, and reentrant, by an autograd function.

Non-reentrant: forward saves placeholders; the frame keeps the inputs. The first saved tensor that
backward asks for runs the layer again, until the last tensor that forward saved has been saved
again (early stop, by an exception: the locals of the interrupted functions live until it is
handled). A recomputed tensor is given away when its node asks for it. Reentrant: forward without a
graph; backward runs the whole layer again and then a nested backward.

Source: pytorch/pytorch v2.14.1 ``torch/utils/checkpoint.py``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from memplan.engine.autograd import Node, needs_grad, run_from
from memplan.engine.state import S, autocast, no_grad
from memplan.engine.tensor import Storage, Tensor

Function = Callable[..., Tensor]


class Stop(Exception):
    """Raised by the last tensor that is saved again."""


class Frame:
    """``_CheckpointFrame``: what one checkpointed call needs to run again."""

    def __init__(self, fn: Function, args: tuple[Any, ...]) -> None:
        self.fn, self.args, self.autocast = fn, args, S.autocast
        self.holders = 0
        self.recomputed: list[Storage | None] | None = None

    def pack(self, t: Tensor) -> int:
        """A placeholder for a saved tensor."""
        self.holders += 1
        return self.holders - 1

    def unpack(self, number: int) -> Storage | None:
        """The saved tensor, after running the function again if need be."""
        if self.recomputed is None:
            args = list(self.args)
            with suppress(Stop):
                self.recompute(args)
        assert self.recomputed is not None
        storage, self.recomputed[number] = self.recomputed[number], None
        return storage

    def recompute(self, args: list[Any]) -> None:
        """Run the function again with a graph, under the autocast state of the forward."""
        self.recomputed = []
        before, S.hooks = S.hooks, (self.repack, None)
        try:
            with no_grad(True), autocast(self.autocast):
                self.fn(*args)
        finally:
            S.hooks = before

    def repack(self, t: Tensor) -> Storage:
        """Keep a tensor that is saved again."""
        assert self.recomputed is not None
        self.recomputed.append(t.storage)
        if len(self.recomputed) == self.holders:
            raise Stop
        storage: Storage = t.storage
        return storage


def checkpoint(fn: Function, *args: Any, use_reentrant: bool = False) -> Any:
    """``torch.utils.checkpoint.checkpoint``."""
    if use_reentrant:
        return reentrant(fn, *args)
    if not S.grad_enabled:
        return fn(*args)
    frame = Frame(fn, args)
    before, S.hooks = S.hooks, (frame.pack, frame.unpack)
    try:
        return fn(*args)
    finally:
        S.hooks = before


def reentrant(fn: Function, *args: Tensor) -> Tensor:
    """``CheckpointFunction``.

    ``args`` are tensors; what else the layer needs is bound in ``fn``.
    """
    dtype = S.autocast
    with no_grad():
        out = fn(*args)
    if not needs_grad(*args):
        return out
    metas = [(a.shape, a.dtype, a.strides, a.requires_grad) for a in args]

    def backward(
        grad: Tensor,
    ) -> list[Tensor | None]:  # locals in CheckpointFunction.backward's order
        this = node()
        assert this is not None
        tensors = list(this.saved)
        del this
        detached_inputs = []
        for storage, (shape, t_dtype, strides, requires_grad) in zip(tensors, metas, strict=True):
            t = Tensor(shape, t_dtype, storage, strides)
            t.requires_grad = requires_grad
            detached_inputs.append(t)
            del t, storage
        with no_grad(True), autocast(dtype):
            outputs = fn(*detached_inputs)
        run_from(outputs, grad)
        return [t.grad for t in detached_inputs]

    made = Node(args, args, backward)
    made.context = (
        fn  # ctx.run_function: the function's node keeps it for as long as the graph lives
    )
    node = weakref.ref(made)
    return made.finish(out)
