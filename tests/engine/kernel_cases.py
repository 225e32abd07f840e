"""Calls whose kernels borrow memory by size and card: attention, products, sums, embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from memplan.engine.kernels import Kernels
from memplan.engine.ops import attention, embedding, matmul
from memplan.engine.reduction import sum_to
from memplan.hardware.device import load_device
from tests.engine.attention_cases import sdpa, torch_sdpa
from tests.engine.case import Arg, Case

# memplan's name of a card -> the virtual GPU's
CARDS = {"t4": "t4", "a100-80gb": "a100-80", "a10g": "a10g", "l4": "l4", "h100-80gb": "h100"}
BACKENDS = {
    "sdpa-flash": "FLASH_ATTENTION",
    "sdpa-efficient": "EFFICIENT_ATTENTION",
    "sdpa-math": "MATH",
}


def kernels_of(card: str) -> Kernels:
    """The facts of a card of the catalogue."""
    d = load_device(card)
    return Kernels(d.compute_capability, d.sm_count, d.threads_per_sm, d.shared_memory_per_block)


def heads(B: int, H: int, N: int, D: int, dtype: str, *, heads_last: bool = True) -> Arg:
    """Queries, keys or values, (B, N, H, D) in memory as transformers makes them."""
    return Arg((B, H, N, D), dtype, (1, 2) if heads_last else None)


def call(
    kernel: str,
    shape: tuple[int, ...],
    dtype: str,
    mask: str = "",
    dropout: float = 0.0,
    **more: Any,
) -> Case:
    """Attention over (batch, heads, key/value heads, length, head size)."""
    B, H, KV, N, D = shape
    k = heads(B, KV, N, D, dtype, **more)
    masks = (Arg((B, 1, N, N), mask),) if mask else ()
    more_of_it = {**more, "dropout": dropout} if dropout else more
    layout = "".join(f" {name}={value}" for name, value in more_of_it.items())
    return Case(
        f"{kernel} {B}x{H}/{KV}x{N}x{D} {dtype}{' mask ' + mask if mask else ''}{layout}",
        (attention.scaled_dot_product_attention,),
        sdpa(kernel, dropout=dropout),
        torch_sdpa(BACKENDS[kernel], dropout_p=dropout)
        if kernel in BACKENDS
        else partial(own_choice, dropout_p=dropout),
        (heads(B, H, N, D, dtype, **more), k, k, *masks),
        exact=False,
        cuda_only="the kernels of a CUDA build",
    )


def own_choice(t: Any, q: Any, k: Any, v: Any, mask: Any = None, *, dropout_p: float = 0.0) -> Any:
    """torch's own choice of a kernel."""
    return t.nn.functional.scaled_dot_product_attention(
        q,
        k,
        v,
        mask,
        dropout_p=dropout_p,
        is_causal=mask is None and q.shape[2] > 1,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def attention_calls() -> Iterator[Case]:
    """Every kernel, head size, dtype and mask that chooses another path."""
    for D in (40, 64, 80, 96, 100, 128, 160, 200, 256, 264):
        for dtype in ("bfloat16", "float32"):
            yield call("sdpa", (2, 4, 4, 300, D), dtype)
            yield call("sdpa", (2, 4, 4, 300, D), dtype, "bool")
    for D in (32, 64, 96, 128, 192):
        yield call("sdpa", (2, 4, 4, 256, D), "float16", "bool")
    for shape in ((1, 8, 2, 1, 64), (1, 4, 4, 2000, 128), (2, 64, 8, 1024, 64), (3, 1, 1, 77, 128)):
        yield call("sdpa", shape, "bfloat16")
        yield call("sdpa", shape, "float32")
    for shape in ((1, 32, 32, 2048, 160), (8, 32, 32, 128, 64), (1, 2, 2, 1000, 256)):
        yield call("sdpa", shape, "bfloat16", "bool")
    for kernel in BACKENDS:
        dtype = "float32" if kernel == "sdpa-math" else "float16"
        yield call(kernel, (2, 4, 2, 300, 64), dtype)
        yield call(kernel, (2, 4, 4, 300, 64), dtype, heads_last=False)
    yield call("sdpa-math", (2, 4, 2, 300, 64), "bfloat16", "bool")
    for kernel in ("sdpa-efficient", "sdpa-math"):
        yield call(kernel, (2, 4, 4, 256, 64), "float16", "float16")
        yield call(kernel, (2, 4, 4, 301, 64), "float32", "float32")


def dropout_calls() -> Iterator[Case]:
    """Attention that drops weights: other random states, other kernels in backward."""
    for D in (32, 64, 96, 128, 160, 200, 256):
        for dtype in ("bfloat16", "float16", "float32"):
            yield call("sdpa", (2, 4, 4, 300, D), dtype, dropout=0.1)
            yield call("sdpa", (2, 4, 4, 300, D), dtype, "bool", dropout=0.1)
    yield call("sdpa", (2, 4, 2, 1, 64), "bfloat16", dropout=0.1)
    yield call("sdpa-math", (2, 4, 2, 300, 64), "bfloat16", dropout=0.1)


def linear_calls() -> Iterator[Case]:
    """Products with biases, whose gradients are sums over rows."""
    for rows, width, outputs in ((300, 64, 96), (8000, 64, 96), (20000, 16, 5120), (70000, 8, 3)):
        for dtype in ("bfloat16", "float32"):
            yield Case(
                f"linear {rows}x{width} to {outputs} {dtype}",
                (matmul.linear,),
                matmul.linear,
                lambda t, a, w, b: t.nn.functional.linear(a, w, b),
                (
                    Arg((2, rows // 2, width), dtype),
                    Arg((outputs, width), dtype),
                    Arg((outputs,), dtype),
                ),
                exact=False,
            )


def sum_calls() -> Iterator[Case]:
    """Gradients of broadcast operands; the last three are beyond 32-bit addresses."""
    for shape, to in (
        ((4, 1000, 4096), (4096,)),
        ((4, 1000, 4095), (4095,)),
        ((1, 100_000, 64), (64,)),
        ((64, 100, 8, 8), (1, 100, 1, 8)),
        ((512, 1000), (512, 1)),
        ((3, 2_000_000), (1, 1)),
        ((8192, 151_936), (151_936,)),
        ((70_000, 40_000), (40_000,)),
        ((3, 50_000, 20_000), (3, 1, 20_000)),
    ):
        for dtype in ("bfloat16", "float32"):
            yield Case(
                f"sum {'x'.join(map(str, shape))} to {'x'.join(map(str, to))} {dtype}",
                (sum_to,),
                lambda a, to=to: sum_to(a, to),
                lambda t, a, to=to: a.sum_to_size(to),
                (Arg(shape, dtype),),
            )


def embedding_calls() -> Iterator[Case]:
    """Sorted, summed in two passes, or added atomically."""
    for n, vocabulary, width in (
        (3072, 5000, 8),
        (3073, 5000, 8),
        (20_000, 128_256, 8),
        (100_000, 32_000, 8),
        (7000, 200, 8),
        (100_000, 300, 3000),
    ):
        for dtype in ("bfloat16", "float32"):
            yield Case(
                f"embedding {n} of {vocabulary}x{width} {dtype}",
                (embedding.embedding,),
                embedding.embedding,
                lambda t, ids, w: t.nn.functional.embedding(ids, w),
                (Arg((n,), "int64"), Arg((vocabulary, width), dtype)),
            )


def masks(case: Case) -> list[tuple[bool, ...]]:
    """All gradients, and none."""
    if case.ops == (sum_to,):
        return [(False,)]
    return [case.masks()[-1], case.masks()[0]]


KERNEL_CASES = (
    *attention_calls(),
    *dropout_calls(),
    *linear_calls(),
    *sum_calls(),
    *embedding_calls(),
)
