"""Products of matrices in any layout, as ``torch.matmul`` makes them.

``memplan.engine.ops.matmul`` has the products with the transpose of a weight.

Source: pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml`` ``mm``;
``torch/csrc/autograd/FunctionsManual.cpp`` ``mm_mat1_backward``, ``mm_mat2_backward``.
"""

from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.ops import matmul as matmul_ops
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import Meta, cast, to
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, numel


def cast_view(t: Tensor) -> Tensor:
    """The cast of a view by autocast of a leaf: it is no leaf, so it is never cached."""
    dtype = S.autocast
    return t if dtype is None or t.dtype not in (FP32, FP16, BF16) else to(t, dtype)


def matmul_t(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``: as ``linear`` without a bias, but autocast casts the view."""
    weight_cast = cast_view(weight)
    x_cast = cast(x)
    return matmul_ops.mm(x_cast, weight_cast)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` as Python calls it: its arguments live until it returns."""
    out = matmul_ops.linear(x, weight)
    return out


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of two matrices."""
    if S.autocast is not None:
        b_cast, a_cast = cast(b), cast(a)
        return mm(a_cast, b_cast)
    return mm(a, b)


def mm(self: Tensor, mat2: Tensor) -> Tensor:
    """``mm: mat2: mm_mat2_backward; self: mm_mat1_backward``: gradients keep the layout."""
    (n, k), m = self.shape, mat2.shape[1]
    if not needs_grad(self, mat2):
        return product((n, m), self.dtype, k)
    a, b, meta_self, meta_mat2 = self.requires_grad, mat2.requires_grad, Meta(self), Meta(mat2)

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_mat2 = operand_gradient(meta_mat2, n) if b else None
        return (operand_gradient(meta_self, m) if a else None), g_mat2

    node = Node((self, mat2), ((mat2,) if a else ()) + ((self,) if b else ()), backward)
    return node.finish(product((n, m), self.dtype, k))


def operand_gradient(operand: Meta, inner: int) -> Tensor:
    """A product in the operand's shape; of columns if the operand is of columns."""
    out = product(operand.shape, operand.dtype, inner)
    if operand.strides == (1, operand.shape[0]):
        out.strides, out.is_view = operand.strides, True
    return out


def matmul_rows(x: Tensor, mat2: Tensor) -> Tensor:
    """``x @ mat2`` of rows in any number of dimensions and a matrix: folded, ``mm``.

    A frozen matrix takes rows in any layout, as ``memplan.engine.ops.matmul.mm`` does.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/LinearAlgebra.cpp`` ``should_fold``.
    """
    mat2_cast = cast(mat2)
    x_cast = cast(x)
    return fold(x_cast, mat2_cast)


def fold(x: Tensor, mat2: Tensor) -> Tensor:
    """The rows as a matrix, ``mm``, and back."""
    shape = (*x.shape[:-1], mat2.shape[1])
    if x.strides is not None:
        folds = mat2.requires_grad or matmul_ops.is_rows(x)
        x = matmul_ops.reshape_for_product(x, x.shape[:-1] if folds else x.shape[:-2])
    if not needs_grad(x, mat2):
        return product(shape, x.dtype, mat2.shape[0])
    a, b, meta, meta_mat2 = x.requires_grad, mat2.requires_grad, Meta(x), Meta(mat2)

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        grad = matmul_ops.flat(grad)
        g_mat2 = operand_gradient(meta_mat2, numel(meta.shape[:-1])) if b else None
        return (matmul_ops.input_gradient(meta, shape[-1]) if a else None), g_mat2

    node = Node((x, mat2), ((mat2,) if a else ()) + ((x,) if b else ()), backward)
    return node.finish(product(shape, x.dtype, mat2.shape[0]))
