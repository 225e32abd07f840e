"""Operators that write into a view of another tensor, as autograd rewrites its graph for them."""

from __future__ import annotations

from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.ops.views import view
from memplan.engine.tensor import Shape, Tensor, alias, empty


def add_to_view(base: Tensor, shape: Shape, other: Tensor) -> Tensor:
    """``y = base.view(shape); y += other``: the base's node becomes ``CopySlices``.

    Its backward copies the gradient as large as the base, clones the part that the view sees for
    ``add``'s own, and writes the result of that back. The view's own node becomes ``as_strided``'s,
    whose backward writes into zeros.

    Source: pytorch/pytorch v2.14.1 ``torch/csrc/autograd/functions/tensor.cpp`` ``CopySlices``;
    ``torch/csrc/autograd/variable.cpp`` ``VariableHooks::grad_fn``; derivatives.yaml
    ``as_strided``.
    """
    if not needs_grad(base, other):
        return view(base, shape)
    a, b, rows = base.requires_grad, other.requires_grad, base.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        result = empty(rows, grad.dtype)
        copied = empty(shape, grad.dtype)
        return (result if a else None), (copied if b else None)

    def strided_backward(grad: Tensor) -> tuple[Tensor]:
        return (alias(empty(rows, grad.dtype), rows),)

    base = Node((base, other), (), backward).finish(alias(base, rows))
    return attach(alias(base, shape), (base,), (), strided_backward)
