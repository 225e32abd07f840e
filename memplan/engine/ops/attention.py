"""Scaled dot product attention: which kernel runs, and the masks and casts before it.

B batch, H query heads, KV key/value heads, N query length, M key length, D head size.

cuDNN's kernel, which torch would prefer on compute capabilities 9.0 and 10.0, is taken as switched
off.

Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp``
``select_sdp_backend``; ``transformers/attention.cpp`` ``scaled_dot_product_attention``.
"""

from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.autograd import needs_grad
from memplan.engine.kernels import Kernels
from memplan.engine.ops.attention_efficient import additive_mask, aligned_bias, efficient
from memplan.engine.ops.attention_flash import flash
from memplan.engine.ops.attention_math import math
from memplan.engine.ops.pointwise import cast
from memplan.engine.state import S
from memplan.engine.tensor import Tensor
from memplan.errors import UnsupportedError

KERNELS = ("sdpa", "sdpa-flash", "sdpa-efficient", "sdpa-math")
FLASH_WIDEST = 256  # check_head_dim_size_flash. [elements]


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool | None = None,
    dropout: float = 0.0,
    kernel: str = "sdpa",
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``, grouped heads included.

    Args:
        q: Queries (B, H, N, D).
        k: Keys (B, KV, M, D).
        v: Values (B, KV, M, D).
        mask: A bool or additive mask (B, 1, N, M).
        is_causal: As in torch; by default, without a mask and for more than one query.
        dropout: Probability that a weight is dropped.
        kernel: ``sdpa`` for torch's own choice, or the one that ``sdpa_kernel`` forces.

    Raises:
        UnsupportedError: The forced kernel cannot run.
    """
    if is_causal is None:
        is_causal = mask is None and q.shape[2] != 1
    if S.autocast is None:
        return dispatch(q, k, v, mask, is_causal, dropout, kernel)
    v_cast, k_cast, q_cast = cast(v), cast(k), cast(q)  # from the last argument to the first
    out = dispatch(q_cast, k_cast, v_cast, mask, is_causal, dropout, kernel)
    del q_cast, k_cast, v_cast
    return out


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a mask."""
    return scaled_dot_product_attention(q, k, v)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention with a mask."""
    return scaled_dot_product_attention(q, k, v, mask)


def dispatch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    dropout: float,
    kernel: str,
) -> Tensor:
    """Run the kernel that is chosen."""
    dropout = dropout if S.training else 0.0
    trains, drops = needs_grad(q, k, v), dropout > 0
    chosen = choose(q, k, mask, is_causal, kernel, trains=trains, drops=drops)
    if chosen == "sdpa-flash":
        return flash(q, k, v, drops=drops)
    bias = None if mask is None else additive_mask(mask, q.dtype)
    if chosen == "sdpa-math":
        return math(q, k, v, bias, is_causal=is_causal, dropout=dropout)
    if bias is not None:
        bias = aligned_bias(bias, q.shape[1])
    return efficient(q, k, v, bias, drops=drops)


def choose(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    kernel: str,
    *,
    trains: bool,
    drops: bool = False,
) -> str:
    """The kernel that runs. Source: ``sdp_utils.cpp`` ``select_sdp_backend``, in its order."""
    card = S.kernels
    if kernel == "sdpa-math":
        return kernel
    if kernel != "sdpa-efficient":
        reason = why_not_flash(q, k, mask, is_causal, card, trains=trains, drops=drops)
        if not reason:
            return "sdpa-flash"
        if kernel == "sdpa-flash":
            raise UnsupportedError(f"attention: sdpa-flash cannot run: {reason}")
    reason = why_not_efficient(q.shape[3], q.dtype, card)
    if not reason:
        return "sdpa-efficient"
    if kernel == "sdpa-efficient":
        raise UnsupportedError(f"attention: sdpa-efficient cannot run: {reason}")
    return "sdpa-math"


def why_not_flash(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    card: Kernels,
    *,
    trains: bool,
    drops: bool,
) -> str:
    """Why the flash kernel cannot run, or nothing. Source: ``can_use_flash_attention``."""
    capability, head_dim = card.compute_capability, q.shape[3]
    if mask is not None:
        return "it takes no mask"
    if head_dim > FLASH_WIDEST:
        return f"its heads are at most {FLASH_WIDEST} wide, not {head_dim}"
    if capability < (8, 0):
        return "it needs compute capability 8.0"
    if trains and is_small_ampere(capability) and head_dim > 192 and (drops or head_dim <= 224):
        return f"it does not train heads of {head_dim} on compute capability {capability}"
    if is_causal and q.shape[2] != k.shape[2]:
        return "its causal mask is for as many keys as queries"
    if q.dtype not in (FP16, BF16):
        return f"it is for 16-bit floats, not {q.dtype}"
    return ""


def is_small_ampere(capability: tuple[int, int]) -> bool:
    """Cards whose shared memory is too small for wide heads in flash's backward.

    Source: ``check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89_or_120``.
    """
    return (8, 6) <= capability <= (8, 9) or (12, 0) <= capability <= (12, 1)


def why_not_efficient(head_dim: int, dtype: DType, card: Kernels) -> str:
    """Why the memory-efficient kernel cannot run. Source: ``can_use_mem_efficient_attention``."""
    old = card.compute_capability < (8, 0)
    if dtype not in ((FP16, FP32) if old else (FP16, FP32, BF16)):
        return f"it does not take {dtype} on compute capability {card.compute_capability}"
    alignment = 8 if dtype is not FP32 else 1 if old else 4  # minimum_gemm_alignment
    if head_dim % alignment:
        return f"heads must be a multiple of {alignment}, not {head_dim}"
    return ""
