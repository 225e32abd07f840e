"""One row an op: views, pointwise operators, products, losses; all tables are gathered here."""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine.ops import embedding, indexing, loss, matmul, pointwise, views
from tests.engine.attention_cases import ATTENTION
from tests.engine.autocast_cases import AUTOCAST
from tests.engine.case import HALF, HEADS, SWAPPED, Arg, B, Case, Q, W, X, simple
from tests.engine.tuner_cases import TUNERS

VIEWS = (
    Case("view", (views.view,), lambda a: views.view(a, (12, 8)), lambda t, a: a.view(12, 8), (X,)),
    Case(
        "reshape of a view",
        (views.reshape,),
        lambda a: views.reshape(a, (2, 48)),
        lambda t, a: a.reshape(2, 48),
        (X,),
    ),
    Case(
        "reshape with a copy",
        (views.reshape, views.clone, views.view),
        lambda a: views.reshape(a, (12, 8)),
        lambda t, a: a.reshape(12, 8),
        (SWAPPED,),
    ),
    simple("contiguous, already", views.contiguous, lambda t, a: a.contiguous(), X),
    simple("contiguous, a copy", views.contiguous, lambda t, a: a.contiguous(), SWAPPED),
    simple("clone", views.clone, lambda t, a: a.clone(), X),
    Case(
        "transpose",
        (views.transpose,),
        lambda a: views.transpose(a, 1, 2),
        lambda t, a: a.transpose(1, 2),
        (X,),
    ),
    Case(
        "unsqueeze",
        (views.unsqueeze,),
        lambda a: views.unsqueeze(a, 1),
        lambda t, a: a.unsqueeze(1),
        (X,),
    ),
    Case(
        "expand",
        (views.expand,),
        lambda a: views.expand(a, (2, 6, 8)),
        lambda t, a: a.expand(2, 6, 8),
        (Arg((2, 1, 8)),),
    ),
    Case(
        "narrow",
        (views.narrow,),
        lambda a: views.narrow(a, -1, 5),
        lambda t, a: a[..., :5],
        (X,),
    ),
    simple("half", views.half, lambda t, a: a[..., 4:], X),
    Case(
        "join_one",
        (views.join_one,),
        lambda a: views.join_one(a, FP32),
        lambda t, a: t.cat([t.zeros(0, device=a.device), a], -2),
        (X,),
    ),
    Case(
        "join_one, promoted",
        (views.join_one,),
        lambda a: views.join_one(a, FP32),
        lambda t, a: t.cat([t.zeros(0, device=a.device), a], -2),
        (HALF,),
    ),
    Case(
        "repeat_batch",
        (views.repeat_batch,),
        lambda a: views.repeat_batch(a, 3),
        lambda t, a: a.repeat(3, 1, 1),
        (Arg((1, 6, 8)),),
    ),
    simple("detach", views.detach, lambda t, a: a.detach(), X),
)

POINTWISE = (
    simple("mul", pointwise.mul, lambda t, a, b: a * b, X, X),
    simple("mul, broadcast", pointwise.mul, lambda t, a, b: a * b, X, Arg((8,))),
    simple("mul, promoted", pointwise.mul, lambda t, a, b: a * b, HALF, X),
    simple("mul, other layout", pointwise.mul, lambda t, a, b: a * b, SWAPPED, X),
    Case(
        "mul by itself",
        (pointwise.mul,),
        lambda a: pointwise.mul(a, a),
        lambda t, a: a * a,
        (X,),
    ),
    simple("scale", pointwise.scale, lambda t, a: a * 0.5, X),
    simple("scale, by division", pointwise.scale, lambda t, a: a / 2, HALF),
    simple("add", pointwise.add, lambda t, a, b: a + b, X, X),
    simple("add, broadcast", pointwise.add, lambda t, a, b: a + b, HALF, Arg((8,), "bfloat16")),
    simple("add, promoted", pointwise.add, lambda t, a, b: a + b, X, HALF),
    simple("add_number", pointwise.add_number, lambda t, a: a + 1e-6, X),
    simple("neg", pointwise.neg, lambda t, a: -a, SWAPPED),
    Case("to", (pointwise.to,), lambda a: pointwise.to(a, FP32), lambda t, a: a.float(), (HALF,)),
    Case(
        "to the same",
        (pointwise.to,),
        lambda a: pointwise.to(a, FP32),
        lambda t, a: a.float(),
        (X,),
    ),
    simple("square", pointwise.square, lambda t, a: a.pow(2), X),
    simple("rsqrt", pointwise.rsqrt, lambda t, a: t.rsqrt(a), X),
    simple("mean_last", pointwise.mean_last, lambda t, a: a.mean(-1, keepdim=True), X),
    simple("silu", pointwise.silu, lambda t, a: t.nn.functional.silu(a), HALF),
    Case(
        "cat",
        (pointwise.cat,),
        lambda a, b: pointwise.cat(a, b, -1),
        lambda t, a, b: t.cat([a, b], -1),
        (X, X),
    ),
    Case(
        "dropout",
        (pointwise.dropout,),
        lambda a: pointwise.dropout(a, 0.1),
        lambda t, a: t.native_dropout(a, 0.1, True)[0],  # what F.dropout is on CUDA
        (X,),
    ),
    Case(
        "dropout of nothing",
        (pointwise.dropout,),
        lambda a: pointwise.dropout(a, 0.0),
        lambda t, a: t.nn.functional.dropout(a, 0.0),
        (X,),
    ),
)

PRODUCTS = (
    simple(
        "linear", matmul.linear, lambda t, a, w: t.nn.functional.linear(a, w), X, W, exact=False
    ),
    simple(
        "linear of rows",
        matmul.linear,
        lambda t, a, w: t.nn.functional.linear(a, w),
        Arg((6, 8)),
        W,
        exact=False,
    ),
    simple(
        "linear, other layout",
        matmul.linear,
        lambda t, a, w: t.nn.functional.linear(a, w),
        SWAPPED,
        W,
        exact=False,
    ),
    simple(
        "linear with a bias",
        matmul.linear,
        lambda t, a, w, b: t.nn.functional.linear(a, w, b),
        X,
        W,
        B,
        exact=False,
    ),
    simple(
        "linear with a bias, rows",
        matmul.linear,
        lambda t, a, w, b: t.nn.functional.linear(a, w, b),
        Arg((6, 8)),
        W,
        B,
        exact=False,
    ),
    simple(
        "linear with a bias, other layout",
        matmul.linear,
        lambda t, a, w, b: t.nn.functional.linear(a, w, b),
        SWAPPED,
        W,
        B,
        exact=False,
    ),
    simple("mm", matmul.mm, lambda t, a, w: a @ w.t(), Arg((6, 8)), W, exact=False),
    simple(
        "addmm",
        matmul.addmm,
        lambda t, a, w, b: t.addmm(b, a, w.t()),
        Arg((6, 8)),
        W,
        B,
        exact=False,
    ),
    Case(
        "add_bias",
        (matmul.add_bias,),
        lambda a, w, b: matmul.add_bias(matmul.mm(a, w), b),
        lambda t, a, w, b: (a @ w.t()).add_(b),
        (Arg((6, 8)), W, B),
        exact=False,
    ),
    simple("bmm", matmul.bmm, lambda t, a, b: t.bmm(a, b), X, Arg((2, 8, 5))),
    simple("matmul", matmul.matmul, lambda t, a, b: a @ b, HEADS, Arg((2, 4, 8, 5)), exact=False),
    simple("batched", matmul.batched, lambda t, a, b: a @ b, Q, Arg((2, 4, 8, 5)), exact=False),
    simple(
        "softmax_float",
        matmul.softmax_float,
        lambda t, a: t.nn.functional.softmax(a, -1, dtype=t.float32),
        HALF,
    ),
    Case(
        "softmax_float of fp32",
        (matmul.softmax_float, matmul.softmax),
        matmul.softmax_float,
        lambda t, a: t.nn.functional.softmax(a, -1, dtype=t.float32),
        (X,),
    ),
    simple(
        "softmax_float of fp16",
        matmul.softmax_float,
        lambda t, a: t.nn.functional.softmax(a, -1, dtype=t.float32),
        Arg((2, 6, 8), "float16"),
    ),
)

LOOKUP_AND_LOSS = (
    simple(
        "embedding",
        embedding.embedding,
        lambda t, ids, w: t.nn.functional.embedding(ids, w),
        Arg((2, 6), "int64"),
        Arg((50, 8)),
    ),
    simple(
        "index_copy",
        indexing.index_copy,
        lambda t, a, index, source: a.index_copy(0, index, source),
        Arg((50, 8)),
        Arg((3,), "int64"),
        Arg((3, 8)),
    ),
    simple(
        "cross_entropy",
        loss.cross_entropy,
        lambda t, a, target: t.nn.functional.cross_entropy(a, target),
        Arg((6, 50)),
        Arg((6,), "int64"),
    ),
)

CASES: tuple[Case, ...] = (
    *VIEWS,
    *POINTWISE,
    *PRODUCTS,
    *LOOKUP_AND_LOSS,
    *ATTENTION,
    *TUNERS,
    *AUTOCAST,
)
