"""Rows put into a table by their numbers.

Source: pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.engine.autograd import Node, needs_grad
from memplan.engine.tensor import Tensor, empty


def index_copy(self: Tensor, index: Tensor, source: Tensor) -> Tensor:
    """``index_copy(dim=0)``: a copy of the table with other rows.

    ``index_copy: self: grad.index_fill(dim, index, 0); source: source.dim() > 0 ?
    grad.index_select(dim, index).expand_as(source) : ...``: the rows are kept for their shape.
    """
    if not needs_grad(self, source):
        return empty(self.shape, self.dtype)
    a, b, rows = self.requires_grad, source.requires_grad, source.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_self = empty(grad.shape, grad.dtype, grad.strides) if a else None
        return g_self, (empty(rows, grad.dtype) if b else None)

    node = Node((self, source), (index, source) if b else (index,), backward)
    return node.finish(empty(self.shape, self.dtype))
