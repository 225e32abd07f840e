"""Matrix products, each with the cuBLAS workspace of its thread."""

from __future__ import annotations

from memplan.dtypes import FP16, FP32, DType
from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.layout import view_strides
from memplan.engine.ops.pointwise import Meta, cast, to, unary
from memplan.engine.ops.views import contiguous, reshape, reshape_raw, view
from memplan.engine.state import S, count_flops
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel


def workspace() -> None:
    """The workspace of this thread's cuBLAS handle.

    Made at the thread's first product, after its output, and never freed; cuBLASLt, which adds a
    bias, works in it, too.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/cuda/CublasHandlePool.cpp``.
    """
    if S.thread not in S.workspaces:
        S.workspaces[S.thread] = Storage(S.kernels.cublas_workspace_bytes)


def product(shape: Shape, dtype: DType, *inner: int) -> Tensor:
    """The output of a cuBLAS product over as many terms each as ``inner`` multiply to."""
    count_flops(2, *shape, *inner)
    out = empty(shape, dtype)
    workspace()
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``at::linear``: with a bias, addmm of a contiguous or 2-D input, else a product and ``add_``.

    Source: ``aten/src/ATen/native/Linear.cpp`` ``linear``, ``_flatten_nd_linear``.
    """
    if S.autocast is not None:
        bias = None if bias is None else cast(bias)  # from the last argument to the first
        weight = cast(weight)
        x = cast(x)
    if bias is None:
        return mm(x, weight)
    if x.strides is None or len(x.shape) == 2:
        return addmm(x, weight, bias)
    return add_bias(mm(x, weight), bias)


def mm(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``: t, view (or a copy) to 2-D, mm, _unsafe_view, as one node.

    ``mm: mat2: mm_mat2_backward; self: mm_mat1_backward``: the weight's gradient is made first,
    contiguous in the weight's layout. With a frozen weight an input that is no view of rows is
    not copied: bmm takes its batches, and saves and makes the same.

    Source: derivatives.yaml ``mm``, ``bmm``; ``aten/src/ATen/native/LinearAlgebra.cpp``
    ``should_fold``.
    """
    shape = (*x.shape[:-1], weight.shape[0])
    if x.strides is not None and len(x.shape) > 2:
        folds = weight.requires_grad or is_rows(x)
        x = reshape_for_product(x, x.shape[:-1] if folds else x.shape[:-2])
    if not needs_grad(x, weight):
        return product(shape, x.dtype, weight.shape[1])
    a, b, meta, sw = x.requires_grad, weight.requires_grad, Meta(x), weight.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        grad = flat(grad)  # _unsafe_view: grad.reshape
        g_weight = weight_gradient(sw, meta) if b else None
        return (input_gradient(meta, sw[0]) if a else None), g_weight

    node = Node((x, weight), ((weight,) if a else ()) + ((x,) if b else ()), backward)
    return node.finish(product(shape, x.dtype, sw[1]))


def is_rows(x: Tensor) -> bool:
    """Whether all but the last dimension are one dimension in memory. Source: ``should_fold``."""
    return view_strides(x, (numel(x.shape[:-1]), x.shape[-1])) is not False


def reshape_for_product(x: Tensor, batch: Shape) -> Tensor:
    """``x``, or a copy if the dimensions of ``batch`` cannot be seen as one."""
    rest = x.shape[len(batch) :]
    return contiguous(x) if view_strides(x, (numel(batch), *rest)) is False else x


def addmm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias``: view to 2-D; addmm and view as one node.

    ``addmm: self: maybe_multiply(grad, beta); mat1: mm_mat1_backward; mat2: mm_mat2_backward``: the
    input's gradient is made first; the bias gets the gradient itself, which the engine sums. The
    view of the input was made before that of the weight, so its gradient is handed on last.

    Source: derivatives.yaml ``addmm``; ``aten/src/ATen/native/cuda/Blas.cpp``.
    """
    shape = (*x.shape[:-1], weight.shape[0])
    if len(x.shape) > 2:
        x = view(x, (numel(x.shape[:-1]), x.shape[-1]))
    if not needs_grad(x, weight, bias):
        out = product(shape, x.dtype, weight.shape[1])
        out.is_view = len(shape) > 2
        return out
    a, b, c = x.requires_grad, weight.requires_grad, bias.requires_grad
    meta, sw = Meta(x), weight.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        grad = flat(grad)
        g_x = input_gradient(meta, sw[0]) if a else None
        g_weight = weight_gradient(sw, meta) if b else None
        return (grad if c else None), g_x, g_weight

    node = Node((bias, x, weight), ((x,) if b else ()) + ((weight,) if a else ()), backward)
    out = node.finish(product(shape, x.dtype, sw[1]))
    out.is_view = len(shape) > 2
    return out


def add_bias(out: Tensor, bias: Tensor) -> Tensor:
    """``output.add_(bias)``: ``add.Tensor: other: maybe_multiply(grad, alpha); self: grad``."""
    if not needs_grad(out, bias):
        return out
    a, b = out.requires_grad, bias.requires_grad
    return attach(out, (out, bias), (), lambda grad: (grad if a else None, grad if b else None))


def flat(grad: Tensor) -> Tensor:
    """``grad.reshape``: a gradient as rows, for a product."""
    if grad.strides is None:
        return grad
    return reshape_raw(grad, (numel(grad.shape[:-1]), grad.shape[-1]))


def weight_gradient(shape: Shape, x: Meta) -> Tensor:
    """``grad.t().mm(x).t()`` of ``weight.t()``, and its ``t``: contiguous, and a view."""
    out = product(shape, x.dtype, *x.shape[:-1])
    out.is_view = True
    return out


def input_gradient(x: Meta, out_features: int) -> Tensor:
    """``mm_mat1_backward``, seen in the input's shape: columns if the input's rows are columns.

    Source: ``torch/csrc/autograd/FunctionsManual.cpp``.
    """
    out = product(x.shape, x.dtype, out_features)
    rows = numel(x.shape[:-1])
    by_columns = x.strides is not None and view_strides(x, (rows, x.shape[-1])) == (1, rows)
    if by_columns:
        out.strides = x.strides
    out.is_view = by_columns or len(x.shape) > 2
    return out


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``at::matmul`` of two 4-D tensors: expand, reshape, which may copy, bmm, _unsafe_view."""
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
        return product(shape, dtype, mat2.shape[1])
    a, b, sa, sb = self.requires_grad, mat2.requires_grad, self.shape, mat2.shape

    def backward(grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_mat2 = product(sb, dtype, sa[1]) if b else None
        return (product(sa, dtype, sb[2]) if a else None), g_mat2

    node = Node((self, mat2), ((mat2,) if a else ()) + ((self,) if b else ()), backward)
    return node.finish(product(shape, dtype, sa[2]))


def softmax_float(self: Tensor) -> Tensor:
    """``softmax(dim=-1, dtype=float32)``: a cast, then ``_softmax``; float16 is cast by the kernel.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/SoftMax.cpp`` ``softmax``: half_to_float.
    """
    return softmax(self if self.dtype is FP16 else to(self, FP32))


def softmax(self: Tensor, to_dtype: DType = FP32) -> Tensor:
    """``_softmax``: ``_softmax_backward_data(grad, result, dim, self.scalar_type())``.

    It saves its result; an input in another layout is copied for it. Backward: the gradient, then
    ``grad * result``, borrowed. Source: ``aten/src/ATen/native/cuda/SoftMax.cu``.
    """
    out = empty(self.shape, to_dtype)
    copy = None if self.strides is None else empty(self.shape, self.dtype)
    del copy
    if not needs_grad(self):
        return out
    m, dtype = Meta(out), self.dtype

    def backward(grad: Tensor) -> tuple[Tensor]:
        out = unary(m, dtype)
        borrowed = unary(m)
        del borrowed
        return (out,)

    return attach(out, (self,), (out,), backward)
