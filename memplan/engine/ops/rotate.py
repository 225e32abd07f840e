"""Angles, and what pairs up the halves of a vector that they rotate.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.ops.pointwise import Meta, binary, unary
from memplan.engine.ops.views import clone, expand, unsqueeze, view
from memplan.engine.tensor import Shape, Tensor, alias, empty, normal, strides_of


def cos(self: Tensor) -> Tensor:
    """``cos: self: grad * -self.sin()``: the right operand first."""
    if not needs_grad(self):
        return unary(self)
    m = Meta(self)

    def backward(grad: Tensor) -> tuple[Tensor]:
        sine = unary(m)
        negative = unary(sine)
        out = binary(grad, negative)
        del negative, sine
        return (out,)

    return Node((self,), (self,), backward).finish(unary(self))


def sin(self: Tensor) -> Tensor:
    """``sin: self: grad * self.cos()``."""
    if not needs_grad(self):
        return unary(self)
    m = Meta(self)

    def backward(grad: Tensor) -> tuple[Tensor]:
        cosine = unary(m)
        out = binary(grad, cosine)
        del cosine
        return (out,)

    return Node((self,), (self,), backward).finish(unary(self))


def without(shape: Shape, dim: int) -> Shape:
    """A tuple without one of its items."""
    return (*shape[:dim], *shape[dim + 1 :])


def select(x: Tensor, dim: int) -> Tensor:
    """``select.int: self: select_backward_symint``: zeros of the whole, and a copy into them."""
    shape = without(x.shape, dim)
    out = alias(x, shape, normal(shape, without(strides_of(x), dim)))
    old = x.shape
    return attach(out, (x,), (), lambda grad: (empty(old, grad.dtype),)) if needs_grad(x) else out


def stack_pair(a: Tensor, b: Tensor) -> Tensor:
    """``torch.stack((a, b), dim=1)``: ``stack_tensors_backward``, a view of the gradient each."""
    out = empty((a.shape[0], 2, *a.shape[1:]), a.dtype)
    if not needs_grad(a, b):
        return out
    parts = [(t.shape, t.requires_grad) for t in (a, b)]

    def backward(grad: Tensor) -> list[Tensor | None]:
        strides = without(strides_of(grad), 1)
        return [alias(grad, s, normal(s, strides)) if wanted else None for s, wanted in parts]

    return attach(out, (a, b), (), backward)


def repeat_rows(x: Tensor, times: int) -> Tensor:
    """``x.repeat_interleave(times, dim=0)`` of a matrix: expanded, cloned, seen as rows.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/Repeat.cpp``.
    """
    rows, columns = x.shape
    repeated = clone(expand(unsqueeze(x, 1), (rows, times, columns)))
    return view(repeated, (rows * times, columns))
