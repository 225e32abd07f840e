"""The flash kernel: what it makes and borrows, forward and backward.

B batch, H query heads, KV key/value heads, N query length, M key length, D head size.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp``
``mha_fwd``, ``mha_bwd``; ``transformers/attention.cpp`` ``pad_last_dim``.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import FP32, INT64
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.ops.pointwise import Meta, pad_last, unary
from memplan.engine.ops.views import narrow
from memplan.engine.reduction import borrow_over
from memplan.engine.sizes import ceil_div, per_cell, round_up
from memplan.engine.state import S, count_flops
from memplan.engine.tensor import Tensor, empty, normal, restrided, strides_of

ALIGNMENT = 8  # elements of a head
# Products of queries by keys in a fused kernel: scores and values; backward makes the scores again.
# Masked places count, as in torch. Source: pytorch/pytorch v2.14.1 torch/utils/flop_counter.py
# ``sdpa_flop_count``, ``sdpa_backward_flop_count``.
FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 5


def flash(q: Tensor, k: Tensor, v: Tensor, *, drops: bool) -> Tensor:
    """The kernel on heads padded to a multiple of 8, and the part of its output that counts."""
    size = q.shape[-1]
    if size % ALIGNMENT == 0:
        return flash_aligned(q, k, v, drops=drops)
    wide = round_up(size, ALIGNMENT)
    q_padded = pad_last(q, wide)
    k_padded = pad_last(k, wide)
    v_padded = pad_last(v, wide)
    return narrow(flash_aligned(q_padded, k_padded, v_padded, drops=drops), -1, size)


def head_size_rounded(D: int) -> int:
    """Head size that the kernels run with. [elements]"""
    return round_up(D, 32 if D <= 128 else 64)


def empty_like_kernel(x: Any) -> Tensor:
    """``at::empty_like`` of what the kernel sees as (B, N, H, D), seen as (B, H, N, D) again."""
    like = unary(x)
    return restrided(like, like.shape, like.strides)


def is_heads_last(x: Any) -> bool:
    """Whether (B, H, N, D) is contiguous once heads and positions are swapped."""
    B, H, N, D = x.shape
    s = strides_of(x)
    return normal((B, N, H, D), (s[0], s[2], s[1], s[3])) is None


def copy_heads_last(x: Any) -> Tensor | None:
    """``x.transpose(1, 2).contiguous()``: a copy, unless it is that already."""
    return None if is_heads_last(x) else empty(x.shape, x.dtype)


def flash_aligned(q: Tensor, k: Tensor, v: Tensor, *, drops: bool) -> Tensor:
    """``_scaled_dot_product_flash_attention``.

    Backward: copies of grad and out if they are not (B, N, H, D) in memory; dq, dk, dv; softmax_d;
    dq_accum in fp32; with grouped heads, dk and dv at the query's number of heads. A gradient that
    nobody wants is made all the same.
    """
    if not needs_grad(q, k, v):
        out, lse, rng_state, unused = flash_forward(q, k, drops=drops)
        del lse, rng_state, unused
        return out
    (B, H, N, D), (_, KV, M, _) = q.shape, k.shape
    dtype, wanted = q.dtype, (q.requires_grad, k.requires_grad, v.requires_grad)
    rounded, width = round_up(N, 128), head_size_rounded(D)
    metas = Meta(q), Meta(k), Meta(v)
    made: list[Meta] = []

    def backward(grad: Tensor) -> list[Tensor | None]:
        grad_copy = copy_heads_last(grad)
        out_copy = copy_heads_last(made[0])
        grads = [empty_like_kernel(m) for m in metas]
        count_flops(BACKWARD_PRODUCTS, 2, B, H, N, M, D)
        softmax_d = empty((B, H, rounded), FP32)
        dq_accum = empty((B, rounded, H, width), FP32)
        if KV != H:
            dk_expanded, dv_expanded = empty((B, M, H, D), dtype), empty((B, M, H, D), dtype)
            sum_groups(dk_expanded, KV)
            sum_groups(dv_expanded, KV)
            del dv_expanded, dk_expanded
        del dq_accum, softmax_d, out_copy, grad_copy
        return [g if w else None for g, w in zip(grads, wanted, strict=True)]

    node = Node((q, k, v), (k, q, v), backward)
    out, lse, rng_state, unused = flash_forward(q, k, drops=drops)
    made.append(Meta(out))
    return node.finish(out, (lse, out, rng_state, unused))


def sum_groups(expanded: Tensor, kv_heads: int) -> None:
    """``at::sum_out`` over the query heads of each key head: borrows beyond 32-bit addresses."""
    B, M, H, D = expanded.shape
    groups = (B, M, kv_heads, H // kv_heads, D)
    borrow_over(restrided(expanded, groups, None), (3,))


def flash_forward(q: Tensor, k: Tensor, *, drops: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``mha_fwd``: out in the query's layout, logsumexp, rng_state (2 x uint64), an unused uint64.

    A split over keys borrows two more; dropout has none, and makes its own rng_state. For one
    query, grouped heads take the place of positions: views only.
    """
    (B, H, N, D), (KV, M) = q.shape, k.shape[1:3]
    if N == 1 and not drops:
        H, N = KV, H // KV
    count_flops(FORWARD_PRODUCTS, 2, B, H, N, M, D)
    out = empty_like_kernel(q)
    lse = empty((B, H, N), FP32)
    sms = S.kernels.sm_count
    split = 1
    if not drops and not fills_gpu(B * H * ceil_div(N, 64), sms):
        split = per_cell(lambda b, h, n, m: flash_splits(b, h, n, m, D, sms), B, H, N, M)
    if split > 1:
        lse_accum = empty((split, B, H, N), FP32)
        out_accum = empty((split, B, H, N, head_size_rounded(D)), FP32)
    rng_state, unused = empty((2,), INT64), empty((), INT64)
    if drops:
        rng_state = empty((2,), INT64)
    if split > 1:
        del out_accum, lse_accum
    return out, lse, rng_state, unused


def fills_gpu(blocks: int, sm_count: int) -> bool:
    """Whether there are blocks enough without a split: 0.8 of two for each multiprocessor."""
    return blocks * 10 >= 16 * sm_count


def flash_splits(B: int, H: int, N: int, M: int, D: int, sm_count: int) -> int:
    """Parts that the keys are split into when there are too few blocks to fill the GPU.

    Source: ``set_params_splitkv``, ``num_splits_heuristic``.
    """
    block_n = 256 if D <= 64 else 128 if D <= 128 else 64
    n_blocks, work, sms = ceil_div(M, block_n), B * H * ceil_div(N, 64), sm_count * 2
    if fills_gpu(work, sm_count):
        return 1
    top = min(128, sms, n_blocks)
    eligible = [
        s for s in range(1, top + 1) if s == 1 or ceil_div(n_blocks, s) != ceil_div(n_blocks, s - 1)
    ]
    efficiency = {s: work * s / (sms * ceil_div(work * s, sms)) for s in eligible}
    enough = 0.85 * max(efficiency.values(), default=0.0)
    return next((s for s in eligible if efficiency[s] >= enough), 1)
