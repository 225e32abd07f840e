"""The math kernel: ordinary operators on 16-bit inputs cast to fp32.

B batch, H query heads, KV key/value heads, N query length, M key length, D head size.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/attention.cpp``
``_scaled_dot_product_attention_math``, ``_safe_softmax``.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP32
from memplan.engine.autograd import attach, needs_grad
from memplan.engine.ops.attention_efficient import additive_mask
from memplan.engine.ops.matmul import add_bias, batched
from memplan.engine.ops.pointwise import Meta, scale, to, unary
from memplan.engine.ops.pointwise import dropout as native_dropout
from memplan.engine.ops.views import clone, expand, transpose, unsqueeze, view
from memplan.engine.reduction import borrow_over
from memplan.engine.tensor import Tensor, empty


def math(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, is_causal: bool, dropout: float
) -> Tensor:
    """``_scaled_dot_product_attention_math``: fp32 all the way; grouped heads are repeated."""
    query_acc = to(q, FP32)
    key_acc = to(k, FP32)
    value_acc = to(v, FP32)
    query = scale(query_acc)
    attn_mask = causal_mask(q.shape[2], k.shape[2]) if is_causal else mask
    key_expanded = repeat_heads(key_acc, q.shape[1])
    value_expanded = repeat_heads(value_acc, q.shape[1])
    attn = batched(query, scale(transpose(key_expanded, 2, 3)))
    if attn_mask is not None:
        attn = add_bias(attn, attn_mask)
    attn = safe_softmax(attn)
    attn = native_dropout(attn, dropout)
    weights = to(attn, q.dtype)  # the second result, evaluated first
    out = to(batched(attn, value_expanded), q.dtype)
    del value_expanded, key_expanded, attn, attn_mask, query, value_acc, key_acc, query_acc
    del weights
    return out


def causal_mask(N: int, M: int) -> Tensor:
    """``ones({L, S}).tril()``, then ``convert_boolean_attn_mask``."""
    ones = empty((N, M), BOOL)
    lower = unary(ones)
    del ones
    return additive_mask(lower, FP32)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """``repeat_interleave(n, -3)``: unsqueeze, expand, clone, flatten.

    Source: ``aten/src/ATen/native/Repeat.cpp`` ``repeat_interleave_symint``.
    """
    B, KV, M, D = x.shape
    if heads == KV:
        return x
    groups = clone(expand(unsqueeze(x, 2), (B, KV, heads // KV, M, D)))
    return view(groups, (B, heads, M, D))


def safe_softmax(self: Tensor) -> Tensor:
    """``_safe_softmax``: softmax, then zeros for the rows that are masked out, in its place.

    ``_safe_softmax: self: _softmax_backward_data(grad, result, dim, self.scalar_type())``.
    """
    out = unary(self)
    masked = unary(self, BOOL)
    masked_rows = empty((*self.shape[:-1], 1), BOOL)
    borrow_over(masked, (3,))
    zero = empty((), out.dtype)
    del zero, masked_rows, masked
    if not needs_grad(self):
        return out
    m = Meta(out)

    def backward(grad: Tensor) -> tuple[Tensor]:
        out = unary(m)
        borrowed = unary(m)
        del borrowed
        return (out,)

    return attach(out, (self,), (out,), backward)
