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


class Holder:
    """``_Holder``: stands for a saved tensor, and has it once it was made again."""

    __slots__ = ("__weakref__", "storage")
    storage: Storage | None


class Frame:
    """``_CheckpointFrame``: what one checkpointed call needs to run again.

    Attributes:
        holders: One for each tensor that forward saved. A node that died with the forward has taken
            its own along: what it saved counts, and is not kept when it is made again.
        made_again: How many tensors the second run has saved, or none before it.
    """

    def __init__(self, fn: Function, args: tuple[Any, ...]) -> None:
        self.fn, self.args, self.autocast = fn, args, S.autocast
        self.holders: list[weakref.ref[Holder]] = []
        self.made_again: int | None = None

    def pack(self, t: Tensor) -> Holder:
        """A placeholder for a saved tensor."""
        holder = Holder()
        self.holders.append(weakref.ref(holder))
        return holder

    def unpack(self, holder: Holder) -> Storage | None:
        """The saved tensor, after running the function again if need be."""
        if self.made_again is None:
            args = list(self.args)
            with suppress(Stop):
                self.recompute(args)
        storage, holder.storage = holder.storage, None
        return storage

    def recompute(self, args: list[Any]) -> None:
        """Run the function again with a graph, under the autocast state of the forward."""
        self.made_again = 0
        before, S.hooks = S.hooks, (self.repack, None)
        try:
            with no_grad(True), autocast(self.autocast):
                self.fn(*args)
        finally:
            S.hooks = before

    def repack(self, t: Tensor) -> Storage:
        """Keep a tensor that is saved again."""
        assert self.made_again is not None
        holder = self.holders[self.made_again]()
        self.made_again += 1
        if holder is not None:
            holder.storage = t.storage
        if self.made_again == len(self.holders):
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
