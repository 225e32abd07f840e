"""Operators with several outputs, and their one node.

An output's gradient waits in a slot of its own; the node runs when all slots that the graph reaches
have theirs. Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from memplan.dtypes import DType
from memplan.engine.autograd import Grads, Node, needs_grad
from memplan.engine.tensor import Shape, Tensor, alias, empty, normal, strides_of

Slots = list["Tensor | None"]


class Slot(Node):
    """One output of a node: takes its gradient as soon as it is there, and hands on nothing else.

    The node's own buffer is the list of its slots.
    """

    __slots__ = ()

    def __init__(self, node: Node, slots: Slots, number: int, out: Tensor) -> None:
        self.order, self.origin = inf, node.origin
        self.edges, self.saved, self.unpack = (node,), [], None
        self.shape, self.dtype = out.shape, out.dtype
        self.buffer, self.waiting, self.context = None, 0, None

        def backward(grad: Tensor) -> Grads:
            slots[number] = grad
            node.buffer = slots  # type: ignore[assignment]
            return (None,)

        self.backward = backward


def attach_all(outs: list[Tensor], x: Tensor, backward: Callable[[Slots], Grads]) -> None:
    """Record an operator on one tensor that saves nothing and has several outputs."""
    slots: Slots = [None] * len(outs)
    node = Node((x,), (), backward)  # type: ignore[arg-type]
    node.shape, node.dtype = x.shape, x.dtype
    for number, out in enumerate(outs):
        out.requires_grad, out.node = True, Slot(node, slots, number, out)


def split(x: Tensor, size: int) -> list[Tensor]:
    """``split.Tensor: self: split_backward``: gradients, zeros for those missing, concatenated."""
    shape = (size, *x.shape[1:])
    outs = [alias(x, shape, normal(shape, strides_of(x))) for _ in range(x.shape[0] // size)]
    old, dtype = x.shape, x.dtype
    if needs_grad(x):
        attach_all(outs, x, lambda slots: (joined(slots, shape, old, dtype),))
    return outs


def unbind(x: Tensor) -> list[Tensor]:
    """``unbind.int: self: unbind_backward``: gradients, zeros for those missing, stacked."""
    shape = x.shape[1:]
    outs = [alias(x, shape, normal(shape, strides_of(x)[1:])) for _ in range(x.shape[0])]
    old, dtype = x.shape, x.dtype
    if needs_grad(x):
        attach_all(outs, x, lambda slots: (joined(slots, (), old, dtype),))
    return outs


def joined(slots: Slots, missing: Shape, shape: Shape, dtype: DType) -> Tensor:
    """One tensor of all gradients, each of which lives until it is there."""
    zeros = [empty(missing, dtype) for grad in slots if grad is None]
    out = empty(shape, dtype)
    del zeros
    return out
