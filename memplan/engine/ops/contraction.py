"""Contractions that ``torch.einsum`` makes of one vector, softmaxes and means in the input's dtype.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.engine.autograd import attach, needs_grad
from memplan.engine.ops import matmul as products
from memplan.engine.ops.matmul import bmm, softmax_float
from memplan.engine.ops.pointwise import cast, mul
from memplan.engine.ops.views import reshape, view
from memplan.engine.reduction import borrow_over
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Tensor, alias, empty, numel, strides_of


def weighted_sum(weights: Tensor, tensors: Tensor) -> Tensor:
    """``einsum("e,eio->io", weights, tensors)``: one batched product of a row and a matrix.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/Linear.cpp`` ``einsum``,
    ``sumproduct_pair``.
    """
    weights_cast, tensors_cast = cast(weights), cast(tensors)
    n, *shape = tensors.shape
    if n == 1:  # nothing to add up: no product of matrices
        return view(mul(view(weights_cast, (1,) * len(tensors.shape)), tensors_cast), tuple(shape))
    left = view(weights_cast, (1, 1, n))
    right = reshape(tensors_cast, (1, n, numel(tuple(shape))))
    return view(bmm(left, right), tuple(shape))


def softmax(self: Tensor) -> Tensor:
    """``softmax(dim=-1)`` without a dtype, to which autocast adds fp32."""
    return products.softmax(self, self.dtype) if S.autocast is None else softmax_float(self)


def mean_rows(self: Tensor) -> Tensor:
    """``mean(dim=0)`` of a matrix: ``mean.dim: self: mean_backward``, one tensor."""
    shape = self.shape
    out = empty(shape[1:], self.dtype)
    borrow_over(self, (0,))

    def backward(grad: Tensor) -> tuple[Tensor]:
        return (empty(shape, grad.dtype),)

    return attach(out, (self,), (), backward) if needs_grad(self) else out


def column(x: Tensor) -> Tensor:
    """``x[:, i].view(-1, 1)`` of a matrix.

    ``select.int: self: select_backward``: zeros, and a copy into them.
    """
    old, strides = x.shape, strides_of(x)
    shape: Shape = (old[0], 1)
    out = alias(x, shape, None if old[1] == 1 else (strides[0], 1))
    return attach(out, (x,), (), lambda grad: (empty(old, grad.dtype),)) if needs_grad(x) else out
