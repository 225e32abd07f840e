"""Quotients, differences and what works in place.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP32, DType
from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.ops.pointwise import Meta, binary, unary
from memplan.engine.reduction import borrow_full
from memplan.engine.tensor import Tensor, empty, numel


def div(self: Tensor, other: Tensor) -> Tensor:
    """``div.Tensor: other: -grad * ((self / other) / other); self: grad / other``.

    The right operand of the product is made first.
    """
    if not needs_grad(self, other):
        return binary(self, other)
    a, b = self.requires_grad, other.requires_grad
    meta_self, meta_other = Meta(self), Meta(other)

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_other = None
        if b:
            once = binary(meta_self, meta_other)
            twice = binary(once, meta_other)
            negative = unary(grad)
            g_other = binary(negative, twice)
            del negative, twice, once
        return (binary(grad, meta_other) if a else None), g_other

    saved = (other, self) if b else (other,)
    return Node((self, other), saved, backward).finish(binary(self, other))


def sub(self: Tensor, other: Tensor) -> Tensor:
    """``sub.Tensor: other: -grad; self: grad``."""
    out = binary(self, other)
    if not needs_grad(self, other):
        return out
    a, b = self.requires_grad, other.requires_grad

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_other = unary(grad) if b else None
        return (grad if a else None), g_other

    return attach(out, (self, other), (), backward)


def add_(self: Tensor, other: Tensor) -> Tensor:
    """``self.add_(other)``: no block; the graph goes on from the same storage.

    ``add_.Tensor: other: grad; self: grad``. Of a view of the whole of its base, the base is what
    is changed: ``as_strided_backward`` makes zeros of the base, ``CopySlices`` a copy of the
    gradient and a clone of its slice.

    Source: pytorch/pytorch v2.14.1 ``torch/csrc/autograd/functions/tensor.cpp`` ``CopySlices``;
    ``torch/csrc/autograd/variable.cpp`` ``VariableHooks::grad_fn``.
    """
    out = Tensor(self.shape, self.dtype, self.storage, self.strides, self.is_view)
    if not needs_grad(self, other):
        return out
    a, b = self.requires_grad, other.requires_grad
    if not self.is_view:
        attach(out, (self, other), (), lambda g: (g if a else None, g if b else None))
        return out

    def copy_slices(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        result = empty(grad.shape, grad.dtype)
        cloned = empty(grad.shape, grad.dtype)
        return (result if a else None), (cloned if b else None)

    attach(out, (self, other), (), copy_slices)
    return attach(out, (out,), (), lambda grad: (empty(grad.shape, grad.dtype),))


def mul_(self: Tensor) -> Tensor:
    """``self *= number``: no block; the graph goes on from the same storage.

    ``mul_.Scalar: self: grad * other``.
    """
    out = Tensor(self.shape, self.dtype, self.storage, self.strides, self.is_view)
    return attach(out, (self,), (), lambda grad: (unary(grad),)) if needs_grad(self) else out


def add_scaled_(self: Tensor, other: Tensor) -> Tensor:
    """``self.add_(other, alpha=number)``: ``other: maybe_multiply(grad, alpha)``."""
    out = Tensor(self.shape, self.dtype, self.storage, self.strides, self.is_view)
    if not needs_grad(self, other):
        return out
    a, b = self.requires_grad, other.requires_grad

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_other = unary(grad) if b else None
        return (grad if a else None), g_other

    return attach(out, (self, other), (), backward)


def vector_norm(self: Tensor, dtype: DType | None = None) -> Tensor:
    """``linalg_vector_norm`` of everything, 2-norm.

    ``self: linalg_vector_norm_backward``: ``grad * (self / norm).masked_fill_(norm == 0, 0)``.
    """
    kind = dtype or self.dtype
    node = None
    if needs_grad(self):
        m = Meta(self)

        def backward(grad: Tensor) -> tuple[Tensor]:
            quotient = unary(m)  # neither the norm nor the gradient, of no dimension, promotes it
            is_zero = empty((), BOOL)
            out = unary(m)
            del is_zero, quotient
            return (out,)

        node = Node((self,), (self,), backward)
    out = empty((), kind)
    borrow_full(numel(self.shape), FP32.itemsize)
    return out if node is None else node.finish(out, (out,))


def clamp_min(self: Tensor) -> Tensor:
    """``clamp(min=number): self: clamp_backward``: ``where(self >= min, grad, zero)``.

    The zero is a tensor on the device.
    """
    if not needs_grad(self):
        return unary(self)
    m = Meta(self)

    def backward(grad: Tensor) -> tuple[Tensor]:
        zero = empty((), grad.dtype)
        within = unary(m, BOOL)
        out = binary(m, grad)
        del within, zero
        return (out,)

    return Node((self,), (self,), backward).finish(unary(self))
