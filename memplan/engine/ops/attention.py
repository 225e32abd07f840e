"""Scaled dot product attention: the flash and the memory-efficient kernel, and what each borrows.

B batch, H query heads, KV key/value heads, N query length, M key length, D head size.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import FP32, INT64, DType
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.kernels import KIB
from memplan.engine.ops.pointwise import Meta, cast
from memplan.engine.ops.views import swap, transposed
from memplan.engine.sizes import ceil_div, per_cell, round_up
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, empty, restrided, strides_of


def heads_last(x: Tensor) -> Tensor:
    """(B, N, H, D) in memory, seen as (B, H, N, D) by a view made inside the kernel."""
    return restrided(x, swap(x.shape, 1, 2), swap(strides_of(x), 1, 2))


def empty_in_layout_of(x: Any) -> Tensor:
    """``empty_like``: a block of its own, with the strides of ``x``, which is dense."""
    return restrided(empty(x.shape, x.dtype), x.shape, x.strides)


def head_size_rounded(D: int) -> int:
    """Head size that the flash kernels run with. [elements]"""
    return round_up(D, 32 if D <= 128 else 64)


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``scaled_dot_product_attention`` without a mask. q, k, v: (B, heads, S, D)."""
    if S.autocast is not None:
        v_cast, k_cast, q_cast = cast(v), cast(k), cast(q)
        out = flash(q_cast, k_cast, v_cast)
        del q_cast, k_cast, v_cast
        return out
    return flash(q, k, v)


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``_scaled_dot_product_flash_attention``.

    Forward: out (B, N, H, D), logsumexp fp32, rng_state (2 x uint64), an unused uint64; a split
    over keys borrows two more.
    Backward: dq, dk, dv; softmax_d; dq_accum in fp32; with grouped heads, dk and dv at the query's
    number of heads.

    Source: pytorch/pytorch v2.14.1
    ``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp`` mha_fwd, mha_bwd.
    """
    if q.dtype is FP32:
        return efficient(q, k, v, None)  # the flash kernel is for 16 bits only
    if not needs_grad(q, k, v):
        out, lse, rng_state, unused = flash_forward(q, k)
        del lse, rng_state, unused
        return out
    (B, H, N, D), (_, KV, M, _) = q.shape, k.shape
    dtype, wanted = q.dtype, (q.requires_grad, k.requires_grad, v.requires_grad)
    rounded, width = round_up(N, 128), head_size_rounded(D)

    metas = [Meta(x) for x in (q, k, v)]

    def backward(grad: Tensor) -> list[Tensor | None]:
        grads = [empty_in_layout_of(m) for m in metas]
        softmax_d = empty((B, H, rounded), FP32)
        dq_accum = empty((B, rounded, H, width), FP32)
        if KV != H:
            dk_expanded, dv_expanded = empty((B, M, H, D), dtype), empty((B, M, H, D), dtype)
            del dv_expanded, dk_expanded
        del dq_accum, softmax_d
        return [g if w else None for g, w in zip(grads, wanted, strict=True)]

    node = Node((q, k, v), (k, q, v), backward)
    out, lse, rng_state, unused = flash_forward(q, k)
    return node.finish(out, (lse, out, rng_state, unused))


def flash_forward(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``mha_fwd``: out, logsumexp, rng_state, unused."""
    (B, H, N, D), M = q.shape, k.shape[2]
    out = empty_in_layout_of(q)
    lse = empty((B, H, N), FP32)
    sms = S.kernels.sm_count
    split = per_cell(lambda b, h, n, m: flash_splits(b, h, n, m, D, sms), B, H, N, M)
    if split > 1:
        lse_accum = empty((split, B, H, N), FP32)
        out_accum = empty((split, B, H, N, head_size_rounded(D)), FP32)
    rng_state, unused = empty((2,), INT64), empty((), INT64)
    if split > 1:
        del out_accum, lse_accum
    return out, lse, rng_state, unused


def flash_splits(B: int, H: int, N: int, M: int, D: int, sm_count: int) -> int:
    """Parts that the keys are split into when there are too few blocks to fill the GPU.

    Source: ``flash_api.cpp`` ``num_splits_heuristic``.
    """
    block_n = 256 if D <= 64 else 128 if D <= 128 else 64
    n_blocks, work, sms = ceil_div(M, block_n), B * H * ceil_div(N, 64), sm_count * 2
    if work >= 0.8 * sms:
        return 1
    top = min(128, sms, n_blocks)
    eligible = [
        s for s in range(1, top + 1) if s == 1 or ceil_div(n_blocks, s) != ceil_div(n_blocks, s - 1)
    ]
    waves = {s: work * s / sms for s in eligible}
    efficiency = {s: w / -(-w // 1) for s, w in waves.items()}
    enough = 0.85 * max(efficiency.values(), default=0.0)
    return next((s for s in eligible if efficiency[s] >= enough), 1)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """``_scaled_dot_product_efficient_attention`` with a boolean mask.

    The mask becomes a bias in the query's dtype, padded to rows of a multiple of 8, in every layer
    anew, and is saved.
    """
    if S.autocast is not None:
        v_cast, k_cast, q_cast = cast(v), cast(k), cast(q)
        out = efficient(q_cast, k_cast, v_cast, attention_bias(mask, q_cast.dtype))
        del q_cast, k_cast, v_cast
        return out
    return efficient(q, k, v, attention_bias(mask, q.dtype))


def attention_bias(mask: Tensor, dtype: DType) -> Tensor:
    """``convert_boolean_attn_mask``, ``pad_bias<8>``:

    ``torch.where`` of two numbers, then a padded copy unless aligned.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/attention.cpp``.
    """
    zero, lowest = empty((), dtype), empty((), dtype)
    bias = empty(mask.shape, dtype)
    del lowest, zero
    N = mask.shape[-1]
    if N % 8 == 0:
        return bias
    return empty((*mask.shape[:-1], round_up(N, 8)), dtype)


def efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """The memory-efficient kernel.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/cuda/attention.cu``,
    ``attention_backward.cu``.
    """
    (B, H, N, D), (_, KV, M, _) = q.shape, k.shape
    dtype = q.dtype
    if not needs_grad(q, k, v):
        seed, offset = empty((), INT64), empty((), INT64)
        out = heads_last(empty((B, N, H, D), dtype))
        del seed, offset
        return out
    wanted = q.requires_grad, k.requires_grad, v.requires_grad

    def backward(grad: Tensor) -> list[Tensor | None]:
        grads = [
            empty((B, N, H, D), dtype),
            empty((B, M, KV, D), dtype),
            empty((B, M, KV, D), dtype),
        ]
        expanded = [empty((B, M, H, D), dtype) for _ in "kv"] if KV != H else None
        delta = efficient_delta(B, H, N, D, dtype)
        heads, shared = B * H, S.kernels.shared_memory_per_block
        floats = per_cell(
            lambda b, n, m: efficient_workspace(b, n, m, D, dtype, shared), heads, N, M
        )
        borrowed = empty((B, H, floats), FP32)
        del delta, borrowed, expanded
        return [heads_last(g) if w else None for g, w in zip(grads, wanted, strict=True)]

    saved = ((bias,) if bias is not None else ()) + (k, q, v)
    node = Node((q, k, v), saved, backward)
    seed, offset = empty((), INT64), empty((), INT64)
    out = heads_last(empty((B, N, H, D), dtype))
    lse = empty((B, H, round_up(N, 32)), FP32)
    if D > 128 and dtype is not FP32:
        accumulator = empty((B, N, H, D), FP32)
        del accumulator
    return node.finish(out, (lse, out, offset, seed))


def efficient_delta(B: int, H: int, N: int, D: int, dtype: DType) -> Tensor:
    """``(grad * out).sum(-1).transpose(1, 2).contiguous()`` in fp32; 16-bit kernels compute it
    themselves.
    """
    if dtype is not FP32:
        return empty((B, H, N), FP32)
    product = empty((B, N, H, D), FP32)
    summed = transposed(empty((B, N, H), FP32), 1, 2)
    delta = summed if summed.strides is None else empty((B, H, N), FP32)
    del summed, product
    return delta


def efficient_workspace(heads: int, N: int, M: int, D: int, dtype: DType, shared: int) -> int:
    """Floats a head that the backward kernel borrows. [elements]

    A tile and a lock for each block of dQ; where dK and dV do not fit into registers, tiles for
    them, for each split of the
    keys. Which kernel runs depends on the shared memory that a block may have. Inferred from
    experiments.

    Source: ``mem_eff_attention/kernel_backward.h`` ``workspace_strideBH``,
    ``attention_backward.cu``.
    """
    large = shared > 128 * KIB

    def tiles(rows: int, columns: int) -> int:
        return ceil_div(N, rows) * ceil_div(D, columns) * (rows * columns + 4)

    if D <= 64:
        return tiles(64, 64)
    if dtype is FP32:
        return tiles(128, 64) if large else tiles(64, 64)
    if D <= 128 and large:
        return tiles(128, 128)
    if D <= 96:
        return tiles(128, 64)
    splits = max(1, min(ceil_div(M, 64), 200 // heads))
    return (tiles(64, 64) if D <= 128 else tiles(128, 64)) + splits * 2 * 64 * round_up(D, 64)
