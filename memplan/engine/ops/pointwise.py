"""Pointwise operators, casts, dropout, concatenation.

Two rules of torch's code generator: saved inputs are kept, and gradients computed, in the
alphabetical order of the argument names; saved outputs come after saved inputs. Each op cites its
entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``; the rules are in
``load_derivatives.py`` and ``gen_autograd_functions.py`` beside it.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import BF16, BOOL, FP16, FP32, DType, promote
from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.layout import broadcast, elementwise_strides
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, alias, empty, normal, strides_of


class Meta:
    """Shape, dtype and layout of a tensor without its storage: what a closure may keep."""

    __slots__ = ("dtype", "shape", "strides")

    def __init__(self, t: Tensor) -> None:
        self.shape, self.dtype, self.strides = t.shape, t.dtype, t.strides


def binary(a: Any, b: Any, dtype: DType | None = None) -> Tensor:
    """The output of a pointwise kernel on two operands, no graph."""
    shape = broadcast(a.shape, b.shape)
    return empty(shape, dtype or promote(a.dtype, b.dtype), elementwise_strides(shape, (a, b)))


def unary(x: Any, dtype: DType | None = None) -> Tensor:
    """The output of a pointwise kernel on one operand, no graph."""
    return empty(x.shape, dtype or x.dtype, elementwise_strides(x.shape, (x,)))


def mul(self: Tensor, other: Tensor) -> Tensor:
    """``mul.Tensor: other: grad * self; self: grad * other``.

    The engine reduces a broadcast operand's gradient.
    """
    if not needs_grad(self, other):
        return binary(self, other)
    a, b = self.requires_grad, other.requires_grad
    meta_self, meta_other = Meta(self), Meta(other)

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_other = binary(grad, meta_self) if b else None
        return (binary(grad, meta_other) if a else None), g_other

    node = Node((self, other), ((other,) if a else ()) + ((self,) if b else ()), backward)
    return node.finish(binary(self, other))


def scale(self: Tensor) -> Tensor:
    """``mul.Tensor`` and ``div.Tensor`` with a number:

    ``grad * other``. Saved-tensor hooks do not see wrapped numbers.
    """
    out = unary(self)
    return attach(out, (self,), (), lambda grad: (unary(grad),)) if needs_grad(self) else out


def add(self: Tensor, other: Tensor) -> Tensor:
    """``add.Tensor: other: grad; self: grad``.

    The very same tensor for both, so it is never accumulated into in place.
    """
    out = binary(self, other)
    if not needs_grad(self, other):
        return out
    a, b = self.requires_grad, other.requires_grad
    return attach(out, (self, other), (), lambda grad: (grad if a else None, grad if b else None))


def add_number(self: Tensor) -> Tensor:
    """``add.Scalar: self: grad``."""
    out = unary(self)
    return attach(out, (self,), (), lambda grad: (grad,)) if needs_grad(self) else out


def neg(self: Tensor) -> Tensor:
    """``neg: self: grad.neg()``."""
    out = unary(self)
    return attach(out, (self,), (), lambda grad: (unary(grad),)) if needs_grad(self) else out


def to(self: Tensor, dtype: DType) -> Tensor:
    """``_to_copy: self: _to_copy_backward(grad, self.options())``; itself for its own dtype."""
    if self.dtype is dtype:
        return self
    out = unary(self, dtype)
    old = self.dtype
    return attach(out, (self,), (), lambda grad: (unary(grad, old),)) if needs_grad(self) else out


def square(self: Tensor) -> Tensor:
    """``pow.Tensor_Scalar: self: pow_backward(grad, self, exponent)``:

    ``grad * (exponent * self.pow(exponent - 1))``.
    """
    if not needs_grad(self):
        return unary(self)
    m = Meta(self)

    def backward(grad: Tensor) -> tuple[Tensor]:
        power = unary(m)
        twice = unary(m)
        out = binary(grad, twice)
        del twice, power
        return (out,)

    return Node((self,), (self,), backward).finish(unary(self))


def rsqrt(self: Tensor) -> Tensor:
    """``rsqrt: self: -0.5 * grad * result.pow(3)``. The right operand is made first."""
    out = unary(self)
    if not needs_grad(self):
        return out
    m = Meta(out)

    def backward(grad: Tensor) -> tuple[Tensor]:
        cube = unary(m)
        halved = unary(grad)
        out = binary(halved, cube)
        del halved, cube
        return (out,)

    return attach(out, (self,), (out,), backward)


def mean_last(self: Tensor) -> Tensor:
    """``mean.dim: self: mean_backward``, the last dimension kept: backward makes one tensor."""
    out = empty((*self.shape[:-1], 1), self.dtype)
    shape = self.shape
    return (
        attach(out, (self,), (), lambda grad: (empty(shape, grad.dtype),))
        if needs_grad(self)
        else out
    )


def silu(self: Tensor) -> Tensor:
    """``silu: self:

    GradMode::is_enabled() ? infinitely_differentiable_silu_backward : silu_backward(grad, self)``.
    """
    if not needs_grad(self):
        return unary(self)
    m = Meta(self)
    return Node((self,), (self,), lambda grad: (binary(grad, m),)).finish(unary(self))


def cat(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """``cat: tensors: cat_tensors_backward``: a view of the gradient for each input.

    The output is contiguous.
    """
    dim %= len(a.shape)
    joined = (*a.shape[:dim], a.shape[dim] + b.shape[dim], *a.shape[dim + 1 :])
    out = empty(joined, promote(a.dtype, b.dtype))
    if not needs_grad(a, b):
        return out
    parts = [(t.shape, t.requires_grad) for t in (a, b)]

    def backward(grad: Tensor) -> list[Tensor | None]:
        s = strides_of(grad)
        return [alias(grad, p, normal(p, s)) if wanted else None for p, wanted in parts]

    return attach(out, (a, b), (), backward)


def pad_last(x: Tensor, size: int) -> Tensor:
    """``constant_pad_nd: self: constant_pad_nd_backward``: a copy; a clone of a part.

    Source: derivatives.yaml; ``aten/src/ATen/native/PadNd.cpp`` ``constant_pad_nd``.
    """
    out = empty((*x.shape[:-1], size), x.dtype)
    old = x.shape

    def backward(grad: Tensor) -> tuple[Tensor]:
        part = alias(grad, old, normal(old, strides_of(grad)))
        return (unary(part),)

    return attach(out, (x,), (), backward) if needs_grad(x) else out


def dropout(self: Tensor, p: float) -> Tensor:
    """``native_dropout: input: native_dropout_backward(grad, result1, scale)``.

    A bool mask, which is saved, then the output. Nothing in evaluation.
    """
    if not p or not S.training:
        return self
    mask = unary(self, BOOL)
    out = unary(self)
    if not needs_grad(self):
        return out
    return attach(out, (self,), (mask,), lambda grad: (unary(grad),))


def cast(t: Tensor) -> Tensor:
    """``at::autocast::cached_cast``: any other float; fp32 leaves that train only once a region.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/autocast_mode.cpp``.
    """
    dtype = S.autocast
    if dtype is None or t.dtype is dtype or t.dtype not in (FP32, FP16, BF16):
        return t
    if t.dtype is FP32 and t.requires_grad and t.node is None and S.cast_cache is not None:
        if t not in S.cast_cache:
            S.cast_cache[t] = to(t, dtype)
        return S.cast_cache[t]
    return to(t, dtype)
