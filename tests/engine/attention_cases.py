"""Attention, one row a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.engine.ops import attention
from memplan.engine.ops.attention_efficient import efficient
from memplan.engine.ops.attention_flash import flash_aligned
from memplan.engine.ops.attention_math import math, repeat_heads, safe_softmax
from memplan.engine.ops.pointwise import pad_last
from tests.engine.case import Arg, Case, Q


def sdpa(kernel: str, **more: Any) -> Callable[..., Any]:
    """memplan's attention with one kernel."""
    return lambda *args: attention.scaled_dot_product_attention(*args, kernel=kernel, **more)


def torch_sdpa(backend: str, **more: Any) -> Callable[..., Any]:
    """torch's attention with one kernel."""

    def call(t: Any, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        with t.nn.attention.sdpa_kernel(getattr(t.nn.attention.SDPBackend, backend)):
            return t.nn.functional.scaled_dot_product_attention(
                q, k, v, mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1], **more
            )

    return call


SDPA = (attention.scaled_dot_product_attention, attention.dispatch)
Q16, KV16, WIDE16 = (
    Arg((2, 4, 6, 8), "bfloat16", (1, 2)),
    Arg((2, 2, 6, 8), "bfloat16", (1, 2)),
    Arg((2, 4, 6, 12), "bfloat16", (1, 2)),
)
MASK = Arg((2, 1, 6, 6), "bool")
ON_CPU = "CPU torch has a flash kernel of its own, and no memory-efficient one"

ATTENTION = (
    Case(
        "sdpa-math",
        (*SDPA, math, safe_softmax),
        sdpa("sdpa-math"),
        torch_sdpa("MATH"),
        (Q, Q, Q),
        exact=False,
    ),
    Case(
        "sdpa-math, 16 bits, grouped heads",
        (*SDPA, math, repeat_heads),
        sdpa("sdpa-math"),
        torch_sdpa("MATH"),
        (Q16, KV16, KV16),
        exact=False,
    ),
    Case(
        "sdpa-math with a mask",
        (*SDPA, math),
        sdpa("sdpa-math"),
        torch_sdpa("MATH"),
        (Q16, Q16, Q16, MASK),
        exact=False,
    ),
    Case(
        "pad_last",
        (pad_last,),
        lambda a: pad_last(a, 16),
        lambda t, a: t.nn.functional.pad(a, (0, 4)),
        (Arg((2, 4, 6, 12), swap=(1, 2)),),
    ),
    Case(
        "sdpa-flash",
        (*SDPA, attention.flash_attention, flash_aligned),
        lambda q, k, v: attention.flash_attention(q, k, v),
        torch_sdpa("FLASH_ATTENTION"),
        (Q16, KV16, KV16),
        exact=False,
        cuda_only=ON_CPU,
    ),
    Case(
        "sdpa-flash, heads of 12",
        (*SDPA, flash_aligned, pad_last),
        sdpa("sdpa-flash"),
        torch_sdpa("FLASH_ATTENTION"),
        (WIDE16, WIDE16, WIDE16),
        exact=False,
        cuda_only=ON_CPU,
    ),
    Case(
        "sdpa-efficient with a mask",
        (*SDPA, attention.efficient_attention, efficient),
        lambda q, k, v, m: attention.efficient_attention(q, k, v, m),
        torch_sdpa("EFFICIENT_ATTENTION"),
        (Q16, Q16, Q16, MASK),
        exact=False,
        cuda_only=ON_CPU,
    ),
    Case(
        "sdpa-efficient, fp32, grouped heads",
        (*SDPA, efficient),
        sdpa("sdpa-efficient"),
        torch_sdpa("EFFICIENT_ATTENTION"),
        (Q, Arg((2, 2, 6, 8)), Arg((2, 2, 6, 8))),
        exact=False,
        cuda_only=ON_CPU,
    ),
)
