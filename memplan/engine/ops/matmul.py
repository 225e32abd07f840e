"""Matrix products, each with the cuBLAS workspace of its thread."""

from __future__ import annotations

from memplan.dtypes import FP32, DType
from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.layout import view_strides
from memplan.engine.ops.pointwise import Meta, cast, to, unary
from memplan.engine.ops.views import contiguous, reshape, reshape_raw, view
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel


def workspace() -> None:
    """The workspace of this thread's cuBLAS handle: made at its first product, after the output,
    and never freed.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/cuda/CublasHandlePool.cpp``.
    """
    if S.thread not in S.workspaces:
        S.workspaces[S.thread] = Storage(S.kernels.cublas_workspace_bytes)


def product(shape: Shape, dtype: DType) -> Tensor:
    """The output of a cuBLAS product."""
    out = empty(shape, dtype)
    workspace()
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``at::linear`` without bias: t, view to 2-D, mm, _unsafe_view, as one node.

    ``mm: mat2: mm_mat2_backward; self: mm_mat1_backward``: the weight's gradient is made first,
    contiguous in the weight's
    layout. Source: derivatives.yaml ``mm``; ``aten/src/ATen/native/Linear.cpp``.
    """
    if S.autocast is not None:
        weight = cast(weight)  # arguments are cast from the last to the first
        x = cast(x)
    shape = (*x.shape[:-1], weight.shape[0])
    if (
        x.strides is not None
        and len(x.shape) > 2
        and view_strides(x, (numel(x.shape[:-1]), x.shape[-1])) is False
    ):
        x = contiguous(x)
    if not needs_grad(x, weight):
        return product(shape, x.dtype)
    a, b, sx, sw, dtype = x.requires_grad, weight.requires_grad, x.shape, weight.shape, x.dtype

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if grad.strides is not None:  # _unsafe_view: grad.reshape
            grad = reshape_raw(grad, (numel(grad.shape[:-1]), grad.shape[-1]))
        g_weight = g_x = None
        if b:
            g_weight = product(sw, dtype)
            g_weight.is_view = True  # t()
        if a:
            g_x = product(sx, dtype)
            g_x.is_view = len(sx) > 2  # view
        return g_x, g_weight

    node = Node((x, weight), ((weight,) if a else ()) + ((x,) if b else ()), backward)
    return node.finish(product(shape, x.dtype))


def biased_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``at::linear`` with a bias, of a contiguous input: view to 2-D, addmm, view, as one node.

    ``addmm: self: maybe_multiply(grad, beta); mat1: mm_mat1_backward; mat2: mm_mat2_backward``.
    The bias gets the gradient itself, which the engine sums. Source: derivatives.yaml ``addmm``;
    ``aten/src/ATen/native/Linear.cpp`` ``_flatten_nd_linear``.
    """
    if S.autocast is not None:
        bias = cast(bias)  # arguments are cast from the last to the first
        weight = cast(weight)
        x = cast(x)
    shape = (*x.shape[:-1], weight.shape[0])
    if not needs_grad(x, weight, bias):
        return product(shape, x.dtype)
    a, b, sx, sw, dtype = x.requires_grad, weight.requires_grad, x.shape, weight.shape, x.dtype

    def backward(grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if grad.strides is not None:
            grad = reshape_raw(grad, (numel(grad.shape[:-1]), grad.shape[-1]))
        g_x = g_weight = None
        if a:
            g_x = product(sx, dtype)
            g_x.is_view = len(sx) > 2  # view
        if b:
            g_weight = product(sw, dtype)
            g_weight.is_view = True  # t()
        return grad, g_x, g_weight

    saved = ((x,) if b else ()) + ((weight,) if a else ())
    out = Node((bias, x, weight), saved, backward).finish(product(shape, x.dtype))
    out.is_view = len(sx) > 2
    return out


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``at::matmul`` of two 4-D tensors: expand, reshape to 3-D (copies if the layout asks for it),
    bmm, _unsafe_view.
    """
    if S.autocast is not None:
        b_cast, a_cast = cast(b), cast(a)  # live until the product is there
        return batched(a_cast, b_cast)
    return batched(a, b)


def batched(a: Tensor, b: Tensor) -> Tensor:
    """The product of two 4-D tensors of one dtype."""
    B, H, n, m = a.shape
    k = b.shape[3]
    a3 = reshape(a, (B * H, n, m))
    b3 = reshape(b, (B * H, m, k))
    return view(bmm(a3, b3), (B, H, n, k))


def bmm(self: Tensor, mat2: Tensor) -> Tensor:
    """``bmm: mat2: self.transpose(1, 2).bmm(grad); self: grad.bmm(mat2.transpose(1, 2))``."""
    shape, dtype = (self.shape[0], self.shape[1], mat2.shape[2]), self.dtype
    if not needs_grad(self, mat2):
        return product(shape, dtype)
    a, b, sa, sb = self.requires_grad, mat2.requires_grad, self.shape, mat2.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_mat2 = product(sb, dtype) if b else None
        return (product(sa, dtype) if a else None), g_mat2

    node = Node((self, mat2), ((mat2,) if a else ()) + ((self,) if b else ()), backward)
    return node.finish(product(shape, dtype))


def softmax_float(self: Tensor) -> Tensor:
    """``softmax(dim=-1, dtype=float32)``: a cast, then ``_softmax``, which saves its result.

    Backward: the output, then ``grad * result``, borrowed. Source:
    ``aten/src/ATen/native/cuda/SoftMax.cu``.
    """
    x = to(self, FP32)
    out = unary(x)
    if not needs_grad(x):
        return out
    m = Meta(out)

    def backward(grad: Tensor) -> tuple[Tensor]:
        out = unary(m)
        borrowed = unary(m)
        del borrowed
        return (out,)

    return attach(out, (x,), (out,), backward)
