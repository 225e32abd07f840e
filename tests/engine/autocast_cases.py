"""Ops that autocast gives other dtypes than their arguments have, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.dtypes import BF16, FP32
from memplan.engine import Tensor, autocast
from memplan.engine.ops import arithmetic, contraction, einsum, linalg, matmul, norm
from tests.engine.case import HALF, SWAPPED, Arg, B, Case, W, X

FP16_ROWS = Arg((2, 6, 8), "float16")
MATRIX, MATRIX16, RIGHT = Arg((6, 8)), Arg((6, 8), "bfloat16"), Arg((8, 5))


def cast(
    name: str, op: Callable[..., Tensor], torch: Callable[..., Any], *args: Arg, **more: Any
) -> Case:
    """A call within ``torch.autocast``; CPU has other lists of what it casts."""

    def memplan_call(*tensors: Tensor) -> Tensor:
        with autocast(BF16):
            return op(*tensors)

    def torch_call(t: Any, *tensors: Any) -> Any:
        with t.autocast("cuda", t.bfloat16):
            return torch(t, *tensors)

    why = "autocast has other lists on a CPU"
    return Case(f"{name}, autocast", (op,), memplan_call, torch_call, args, cuda_only=why, **more)


AUTOCAST = (
    cast("exp", einsum.exp, lambda t, a: t.exp(a), HALF),
    cast("softmax", contraction.softmax, lambda t, a: t.softmax(a, -1), HALF),
    cast("softmax of fp16", contraction.softmax, lambda t, a: t.softmax(a, -1), FP16_ROWS),
    cast("softmax of fp32", contraction.softmax, lambda t, a: t.softmax(a, -1), X),
    cast("sum_middle", einsum.sum_middle, lambda t, a: t.sum(a, dim=-2), X),
    cast("sum_middle of 16 bits", einsum.sum_middle, lambda t, a: t.sum(a, dim=-2), HALF),
    cast("norms", lambda a: norm.norms(a, 1), lambda t, a: a.norm(dim=1), MATRIX),
    cast("norms of 16 bits", lambda a: norm.norms(a, 1), lambda t, a: a.norm(dim=1), MATRIX16),
    cast("vector_norm", lambda a: arithmetic.vector_norm(a, FP32), lambda t, a: t.norm(a), MATRIX),
    cast(
        "vector_norm of 16 bits",
        lambda a: arithmetic.vector_norm(a, FP32),
        lambda t, a: t.norm(a),
        MATRIX16,
    ),
    cast("mean_rows", contraction.mean_rows, lambda t, a: a.mean(dim=0), MATRIX),
    cast("mean_rows of 16 bits", contraction.mean_rows, lambda t, a: a.mean(dim=0), MATRIX16),
    cast("linear", linalg.linear, lambda t, a, w: t.nn.functional.linear(a, w), X, W, exact=False),
    cast(
        "linear with a bias",
        matmul.linear,
        lambda t, a, w, b: t.nn.functional.linear(a, w, b),
        X,
        W,
        B,
        exact=False,
    ),
    cast("matmul of two matrices", linalg.matmul, lambda t, a, b: a @ b, MATRIX, RIGHT),
    cast("matmul_t", linalg.matmul_t, lambda t, a, w: a @ w.T, MATRIX, W, exact=False),
    cast("matmul_rows", linalg.matmul_rows, lambda t, a, b: a @ b, X, RIGHT, exact=False),
    cast(
        "matmul_rows, other layout",
        linalg.matmul_rows,
        lambda t, a, b: a @ b,
        SWAPPED,
        RIGHT,
        exact=False,
    ),
    cast("bmm", einsum.bmm, lambda t, a, b: t.bmm(a, b), X, Arg((2, 8, 5))),
    cast(
        "rotate_blocks",
        einsum.rotate_blocks,
        lambda t, a, b: t.einsum("...rk,rkc->...rc", a, b),
        Arg((2, 6, 3, 4)),
        Arg((3, 4, 4)),
        exact=False,
    ),
    cast(
        "weighted_sum",
        contraction.weighted_sum,
        lambda t, a, b: t.einsum("e,eio->io", a, b),
        Arg((3,)),
        Arg((3, 6, 8)),
        exact=False,
    ),
)
