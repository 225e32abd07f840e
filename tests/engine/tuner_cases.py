"""The ops that tuners add, one row an op: their quotients, rotations, contractions, norms."""

from __future__ import annotations

from memplan.engine.ops import (
    activations,
    arithmetic,
    contraction,
    einsum,
    inplace,
    linalg,
    norm,
    pointwise,
    rotate,
    split,
    topk,
    views,
)
from memplan.engine.ops.orthogonal import orthogonal_columns
from tests.engine.case import HALF, SWAPPED, Arg, Case, W, X, simple

ROW = Arg((8,))
MATRIX = Arg((6, 8))
COLUMNS = Arg((6, 8), swap=(0, 1))

ACTIVATIONS = (
    simple("tanh", activations.tanh, lambda t, a: a.tanh(), X),
    simple("tanh, other layout", activations.tanh, lambda t, a: a.tanh(), SWAPPED),
    Case(
        "relu",
        (activations.relu, activations.of_result),
        activations.relu,
        lambda t, a: a.relu(),
        (HALF,),
    ),
    simple("exp", einsum.exp, lambda t, a: a.exp(), X),
    simple("cos", rotate.cos, lambda t, a: a.cos(), X),
    simple("sin", rotate.sin, lambda t, a: a.sin(), X),
    simple("clamp_min", arithmetic.clamp_min, lambda t, a: a.clamp(min=1e-4), X),
    simple("softmax", contraction.softmax, lambda t, a: a.softmax(-1), HALF),
    simple("softmax, other layout", contraction.softmax, lambda t, a: a.softmax(-1), SWAPPED),
)

ARITHMETIC = (
    simple("div", arithmetic.div, lambda t, a, b: a / b, X, X),
    simple("div, broadcast", arithmetic.div, lambda t, a, b: a / b, X, ROW),
    simple("div of less", arithmetic.div, lambda t, a, b: a / b, ROW, X),
    simple("div, promoted", arithmetic.div, lambda t, a, b: a / b, HALF, X),
    simple("sub", arithmetic.sub, lambda t, a, b: a - b, X, X),
    simple("sub, broadcast", arithmetic.sub, lambda t, a, b: a - b, X, ROW),
    simple("sub, promoted", arithmetic.sub, lambda t, a, b: a - b, X, HALF),
    Case(
        "add_",
        (arithmetic.add_,),
        lambda a, b: arithmetic.add_(pointwise.scale(a), b),
        lambda t, a, b: (a * 2).add_(b),
        (X, X),
    ),
    Case(
        "add_ to a view",
        (arithmetic.add_,),
        lambda a, b: arithmetic.add_(views.view(pointwise.scale(a), (12, 8)), b),
        lambda t, a, b: (a * 2).view(12, 8).add_(b),
        (X, Arg((12, 8))),
    ),
    Case(
        "add_scaled_",
        (arithmetic.add_scaled_,),
        lambda a, b: arithmetic.add_scaled_(pointwise.scale(a), b),
        lambda t, a, b: (a * 2).add_(b, alpha=2),
        (X, X),
    ),
    Case(
        "add_to_view",
        (inplace.add_to_view,),
        lambda a, b: inplace.add_to_view(pointwise.scale(a), (2, 6, 8), b),
        lambda t, a, b: (a * 2).view(2, 6, 8).add_(b),
        (Arg((12, 8)), ROW),
    ),
    Case(
        "mul_",
        (arithmetic.mul_,),
        lambda a: arithmetic.mul_(pointwise.scale(a)),
        lambda t, a: (a * 2).mul_(0.5),
        (X,),
    ),
)

NORMS = (
    simple("vector_norm", arithmetic.vector_norm, lambda t, a: a.norm(), MATRIX),
    Case(
        "norms of rows",
        (norm.norms,),
        lambda a: norm.norms(a, 1),
        lambda t, a: a.norm(dim=1),
        (MATRIX,),
    ),
    Case(
        "norms of columns",
        (norm.norms,),
        lambda a: norm.norms(a, 0),
        lambda t, a: a.norm(dim=0),
        (MATRIX,),
    ),
    simple("mean_rows", contraction.mean_rows, lambda t, a: a.mean(dim=0), MATRIX),
    simple("sum_middle", einsum.sum_middle, lambda t, a: a.sum(dim=-2), X),
    simple("sum_middle of one", einsum.sum_middle, lambda t, a: a.sum(dim=-2), Arg((6, 1, 8))),
    simple("orthogonal_columns", orthogonal_columns, lambda t, a: t.linalg.qr(a).Q, Arg((8, 6))),
    simple(
        "orthogonal_columns, one", orthogonal_columns, lambda t, a: t.linalg.qr(a).Q, Arg((8, 1))
    ),
    simple(
        "orthogonal_columns, 64", orthogonal_columns, lambda t, a: t.linalg.qr(a).Q, Arg((70, 64))
    ),
)

PARTS = (
    Case(
        "permute",
        (views.permute,),
        lambda a: views.permute(a, (2, 0, 1)),
        lambda t, a: a.permute(2, 0, 1),
        (X,),
    ),
    Case(
        "repeat_columns",
        (einsum.repeat_columns,),
        lambda a: einsum.repeat_columns(a, 4),
        lambda t, a: a.repeat(1, 4),
        (MATRIX,),
    ),
    Case(
        "repeat_columns once",
        (einsum.repeat_columns,),
        lambda a: einsum.repeat_columns(a, 1),
        lambda t, a: a.repeat(1, 1),
        (MATRIX,),
    ),
    Case(
        "repeat_rows",
        (rotate.repeat_rows,),
        lambda a: rotate.repeat_rows(a, 2),
        lambda t, a: a.repeat_interleave(2, dim=0),
        (MATRIX,),
    ),
    simple("column", contraction.column, lambda t, a: a[:, 2].view(-1, 1), MATRIX),
    simple("column of columns", contraction.column, lambda t, a: a[:, 2].view(-1, 1), COLUMNS),
    Case(
        "select",
        (rotate.select,),
        lambda a: rotate.select(a, 1),
        lambda t, a: a[:, 2, :],
        (X,),
    ),
    simple("stack_pair", rotate.stack_pair, lambda t, a, b: t.stack((a, b), dim=1), X, X),
    Case(
        "split, one part",
        (split.split, split.attach_all),
        lambda a: split.split(a, 2)[0],
        lambda t, a: a.split(2)[0],
        (MATRIX,),
    ),
    Case(
        "split, all parts",
        (split.split,),
        lambda a: pointwise.mul(*split.split(a, 3)),
        lambda t, a: t.mul(*a.split(3)),
        (MATRIX,),
    ),
    Case(
        "unbind, one part",
        (split.unbind,),
        lambda a: split.unbind(a)[0],
        lambda t, a: a.unbind()[0],
        (X,),
    ),
    Case(
        "unbind, all parts",
        (split.unbind,),
        lambda a: pointwise.mul(*split.unbind(a)),
        lambda t, a: t.mul(*a.unbind()),
        (X,),
    ),
    Case(
        "halves, one of them",
        (einsum.halves,),
        lambda a: einsum.halves(a)[0],
        lambda t, a: a.chunk(2, dim=-1)[0],
        (X,),
    ),
    Case(
        "halves, both",
        (einsum.halves,),
        lambda a: pointwise.mul(*einsum.halves(a)),
        lambda t, a: t.mul(*a.chunk(2, dim=-1)),
        (X,),
    ),
)

CONTRACTIONS = (
    simple("mm of two matrices", linalg.mm, lambda t, a, b: a @ b, MATRIX, Arg((8, 5))),
    simple("mm of columns", linalg.mm, lambda t, a, b: a @ b, COLUMNS, Arg((8, 5), swap=(0, 1))),
    simple("matmul of two matrices", linalg.matmul, lambda t, a, b: a @ b, MATRIX, Arg((8, 5))),
    simple("matmul_t", linalg.matmul_t, lambda t, a, w: a @ w.T, MATRIX, W, exact=False),
    Case(
        "matmul_rows",
        (linalg.matmul_rows, linalg.fold),
        linalg.matmul_rows,
        lambda t, a, b: a @ b,
        (X, Arg((8, 5))),
        exact=False,
    ),
    simple(
        "matmul_rows, other layout",
        linalg.matmul_rows,
        lambda t, a, b: a @ b,
        SWAPPED,
        Arg((8, 5)),
        exact=False,
    ),
    simple("bmm, a product's", einsum.bmm, lambda t, a, b: t.bmm(a, b), X, Arg((2, 8, 5))),
    simple(
        "rotate_blocks",
        einsum.rotate_blocks,
        lambda t, a, b: t.einsum("...rk,rkc->...rc", a, b),
        Arg((2, 6, 3, 4)),
        Arg((3, 4, 4)),
        exact=False,
    ),
    simple(
        "weighted_sum",
        contraction.weighted_sum,
        lambda t, a, b: t.einsum("e,eio->io", a, b),
        Arg((3,)),
        Arg((3, 6, 8)),
        exact=False,
    ),
    simple(
        "rotate_blocks of one",
        einsum.rotate_blocks,
        lambda t, a, b: t.einsum("...rk,rkc->...rc", a, b),
        Arg((2, 6, 3, 1)),
        Arg((3, 1, 4)),
        exact=False,
    ),
    simple(
        "weighted_sum of one",
        contraction.weighted_sum,
        lambda t, a, b: t.einsum("e,eio->io", a, b),
        Arg((1,)),
        Arg((1, 6, 8)),
        exact=False,
    ),
)

TABLE, FEW, MANY = Arg((256, 8)), Arg((5, 3), "int64"), Arg((50, 60), "int64")

LOOKUPS = (
    Case(
        "topk",
        (topk.topk,),
        lambda a: topk.topk(a, 2)[0],
        lambda t, a: a.topk(2, dim=-1).values,
        (Arg((6, 40)),),
    ),
    simple("rows_of", topk.rows_of, lambda t, a, i: a[i], TABLE, FEW),
    simple("rows_of, many", topk.rows_of, lambda t, a, i: a[i], TABLE, MANY),
    Case(
        "rows_of, turned",
        (topk.rows_of,),
        lambda a, i: views.transpose(topk.rows_of(a, i), 0, 1),
        lambda t, a, i: a[i].transpose(0, 1),
        (TABLE, MANY),
    ),
)

TUNERS: tuple[Case, ...] = (
    *ACTIVATIONS,
    *ARITHMETIC,
    *NORMS,
    *PARTS,
    *CONTRACTIONS,
    *LOOKUPS,
)
