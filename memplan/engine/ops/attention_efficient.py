"""The memory-efficient kernel: what it makes and borrows, forward and backward.

B batch, H query heads, KV key/value heads, N query length, M key length, D head size.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/cuda/attention.cu``
``_efficient_attention_forward``, ``attention_backward.cu`` ``_efficient_attention_backward``;
``transformers/attention.cpp`` ``convert_boolean_attn_mask``, ``preprocess_mask``.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP32, INT64, UINT8, DType
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.ops.attention_flash import (
    BACKWARD_PRODUCTS,
    FORWARD_PRODUCTS,
    copy_heads_last,
    sum_groups,
)
from memplan.engine.ops.cutlass import BackwardKernel, backward_kernel, backward_workspace
from memplan.engine.ops.pointwise import Meta, pad_last
from memplan.engine.ops.views import expand, narrow, swap, transposed
from memplan.engine.reduction import borrow_over
from memplan.engine.sizes import per_cell, round_up
from memplan.engine.state import S, count_flops
from memplan.engine.tensor import Tensor, empty, normal, restrided, strides_of

BIAS_ALIGNMENT = 8  # mem_eff_alignment. [elements]
BIAS_GRADIENT_ALIGNMENT = 16  # alignTo. [elements]
LSE_ALIGNMENT = 32  # kAlignLSE of mem_eff_attention/kernel_forward.h. [elements]
WIDEST_IN_REGISTERS = 128  # the forward kernels that keep their output in registers. [elements]


def heads_last(x: Tensor) -> Tensor:
    """(B, N, H, D) in memory, seen as (B, H, N, D) by a view made inside the kernel."""
    shape = swap(x.shape, 1, 2)
    return restrided(x, shape, normal(shape, swap(strides_of(x), 1, 2)))


def additive_mask(mask: Tensor, dtype: DType) -> Tensor:
    """``convert_boolean_attn_mask``: ``torch.where`` of two numbers; a float mask as it is."""
    if mask.dtype is not BOOL:
        return mask
    zero, lowest = empty((), dtype), empty((), dtype)
    bias = empty(mask.shape, dtype)
    del lowest, zero
    return bias


def aligned_bias(bias: Tensor, heads: int) -> Tensor:
    """``preprocess_mask``: padded unless all rows start at a multiple of 8 elements; one a head."""
    strides, last = strides_of(bias), bias.shape[-1]
    if strides[-1] != 1 or any(s % BIAS_ALIGNMENT != 0 for s in strides[:-1]):
        padded = pad_last(bias, last + BIAS_ALIGNMENT - last % BIAS_ALIGNMENT)
        bias = narrow(padded, -1, last)
    return expand(bias, (bias.shape[0], heads, *bias.shape[2:]))


def efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, drops: bool) -> Tensor:
    """``_scaled_dot_product_efficient_attention``; gradients that nobody wants are made, too."""
    biases = () if bias is None else (bias,)
    if not needs_grad(q, k, v, *biases):
        out, lse, seeds = efficient_forward(q, k, needs_lse=False, drops=drops)
        del seeds, lse
        return out
    (B, H, N, D), (_, KV, M, _) = q.shape, k.shape
    dtype, wanted = q.dtype, (q.requires_grad, k.requires_grad, v.requires_grad)
    kernel = backward_kernel(dtype, D, S.kernels, drops=drops)
    made: list[Meta] = []
    has_bias = bias is not None
    bias_meta = Meta(bias) if bias is not None and bias.requires_grad else None

    def backward(grad: Tensor) -> list[Tensor | None]:
        grad_copy = copy_heads_last(grad)
        grads = [empty((B, n, h, D), dtype) for n, h in ((N, H), (M, KV), (M, KV))]
        expanded = [empty((B, M, H, D), dtype) for _ in "kv"] if KV != H else None
        bias_grad = None if bias_meta is None else bias_gradient(bias_meta)
        workspace = run_backward(kernel, made[0], M)
        if expanded is not None:
            sum_groups(expanded[0], KV)
            sum_groups(expanded[1], KV)
        del workspace, expanded, grad_copy
        wished = [heads_last(g) if w else None for g, w in zip(grads, wanted, strict=True)]
        return [*wished, bias_grad] if has_bias else wished

    node = Node((q, k, v, *biases), (*biases, k, q, v), backward)
    out, lse, seeds = efficient_forward(q, k, needs_lse=True, drops=drops)
    made.append(Meta(out))
    return node.finish(out, (lse, out, *seeds))


def bias_gradient(bias: Meta) -> Tensor:
    """``grad_bias``: rows of a multiple of 16 elements, of which the bias's own are seen."""
    *rows, last = bias.shape
    out = empty((*rows, round_up(last, BIAS_GRADIENT_ALIGNMENT)), bias.dtype)
    return restrided(out, bias.shape, normal(bias.shape, strides_of(out)))


def efficient_forward(
    q: Tensor, k: Tensor, *, needs_lse: bool, drops: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """out, logsumexp, (offset, seed), which are on the host if anything is dropped.

    16-bit heads that are too wide for registers meet in fp32.
    """
    B, H, N, D = q.shape
    count_flops(FORWARD_PRODUCTS, 2, B, H, N, k.shape[2], D)
    seeds = [] if drops else [empty((), INT64), empty((), INT64)]
    out = heads_last(empty((B, N, H, D), q.dtype))
    lse = empty((B, H, round_up(N, LSE_ALIGNMENT) if needs_lse else 0), FP32)
    if D > WIDEST_IN_REGISTERS and q.dtype is not FP32:
        accumulator = empty((B, N, H, D), FP32)
        del accumulator
    seeds.reverse()
    return out, lse, seeds


def run_backward(kernel: BackwardKernel, out: Meta, M: int) -> Tensor | None:
    """What the backward kernel borrows: delta, and a workspace, which outlives it."""
    B, H, N, D = out.shape
    count_flops(BACKWARD_PRODUCTS, 2, B, H, N, M, D)
    delta = empty((B, H, N), FP32) if kernel.computes_delta else delta_outside(out)
    nbytes = per_cell(lambda b, h, n, m: backward_workspace(kernel, b, h, n, m, D), B, H, N, M)
    workspace = empty((nbytes,), UINT8) if nbytes > 0 else None
    del delta
    return workspace


def delta_outside(out: Meta) -> Tensor:
    """``(grad_out.to(kFloat) * out.to(kFloat)).sum(-1).transpose(-2, -1).contiguous()``.

    One expression: its temporaries live until its end.
    """
    B, H, N, D = out.shape
    casts = [] if out.dtype is FP32 else [empty((B, N, H, D), FP32) for _ in range(2)]
    product = empty((B, N, H, D), FP32)
    summed = empty((B, N, H), FP32)
    borrow_over(product, (3,))
    delta = transposed(summed, 1, 2)
    if delta.strides is not None:
        delta = empty((B, H, N), FP32)
    del summed, product, casts
    return delta
