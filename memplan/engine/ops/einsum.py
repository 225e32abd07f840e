"""What ``torch.einsum`` and its kind are made of: permutations, repeats, sums, halves.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine.autograd import attach, needs_grad
from memplan.engine.ops import matmul as products
from memplan.engine.ops.pointwise import Meta, binary, cast, mul, to, unary
from memplan.engine.ops.split import attach_all, joined
from memplan.engine.ops.views import permute, reshape, view
from memplan.engine.reduction import borrow_over
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, alias, empty, normal, strides_of


def bmm(self: Tensor, mat2: Tensor) -> Tensor:
    """``bmm`` as it is called by name, so that autocast casts what it is given."""
    if S.autocast is None:
        return products.bmm(self, mat2)
    mat2_cast, self_cast = cast(mat2), cast(self)
    return products.bmm(self_cast, mat2_cast)


def rotate_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """``einsum("...rk,rkc->...rc", x, blocks)`` of a 4-D ``x``, in the layout that ``bmm`` leaves.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/Linear.cpp`` ``einsum``,
    ``sumproduct_pair``: permuted, seen or copied as (r, ..., k), and multiplied r by r; where there
    is nothing to add up, it is no product of matrices.
    """
    x_cast, blocks_cast = cast(x), cast(blocks)
    (B, N, R, K), C = x.shape, blocks.shape[2]
    if K == 1:
        return mul(x_cast, view(blocks_cast, (1, 1, R, C)))
    left = reshape(permute(x_cast, (2, 0, 1, 3)), (R, B * N, K))
    out = view(products.bmm(left, blocks_cast), (R, B, N, C))
    return permute(out, (1, 2, 0, 3))


def sum_middle(x: Tensor) -> Tensor:
    """``x.sum(dim=-2)``, which autocast has in fp32.

    ``sum.dim_IntList: self: sum_backward``: the gradient expanded, a view.
    """
    dim, shape = len(x.shape) - 2, x.shape
    dtype = x.dtype if S.autocast is None else FP32
    out = empty((*shape[:dim], shape[-1]), dtype)
    borrow_over(x, (dim,))

    def backward(grad: Tensor) -> tuple[Tensor]:
        strides = strides_of(grad)
        return (alias(grad, shape, normal(shape, (*strides[:dim], 0, strides[-1]))),)

    return attach(out, (x,), (), backward) if needs_grad(x) else out


def repeat_columns(x: Tensor, times: int) -> Tensor:
    """``x.repeat(1, times)`` of a matrix: a copy even for one.

    ``repeat: self: repeat_backward``: a sum over the repeats.
    """
    rows, columns = x.shape
    out = empty((rows, columns * times), x.dtype)

    def backward(grad: Tensor) -> tuple[Tensor]:
        if times == 1:
            return (grad,)
        total = empty((rows, columns), grad.dtype)
        borrow_over(Tensor((rows, times, columns), grad.dtype, None), (1,))
        return (total,)

    return attach(out, (x,), (), backward) if needs_grad(x) else out


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x.chunk(2, dim=-1)``: ``split.Tensor: self: split_backward``, one tensor of both."""
    shape = (*x.shape[:-1], x.shape[-1] // 2)
    outs = [alias(x, shape, normal(shape, strides_of(x))) for _ in range(2)]
    old, dtype = x.shape, x.dtype
    if needs_grad(x):
        attach_all(outs, x, lambda slots: (joined(slots, shape, old, dtype),))
    return outs[0], outs[1]


def exp(self: Tensor) -> Tensor:
    """``exp: self: grad * result``, which autocast has in fp32."""
    if S.autocast is not None:
        self = to(self, FP32)
    out = unary(self)
    m = Meta(out)
    return (
        attach(out, (self,), (out,), lambda grad: (binary(grad, m),)) if needs_grad(self) else out
    )
