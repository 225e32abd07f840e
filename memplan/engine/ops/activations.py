"""Activation functions that save their result.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.engine.autograd import attach, needs_grad
from memplan.engine.ops.pointwise import Meta, binary, unary
from memplan.engine.tensor import Tensor


def tanh(self: Tensor) -> Tensor:
    """``tanh: self: tanh_backward(grad, result)``."""
    return of_result(self)


def relu(self: Tensor) -> Tensor:
    """``relu: self: threshold_backward(grad, result, 0)``."""
    return of_result(self)


def of_result(self: Tensor) -> Tensor:
    """A function whose derivative is one kernel on the gradient and the result."""
    out = unary(self)
    if not needs_grad(self):
        return out
    m = Meta(out)
    return attach(out, (self,), (out,), lambda grad: (binary(grad, m),))
