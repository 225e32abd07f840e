"""Liger's kernels around torch's allocator: what each makes, saves and overwrites.

They are Triton; what they allocate is asked of torch by the Python around them. Gradients are
written over what was saved, or over the gradient that came.

Source: linkedin/Liger-Kernel v0.8.5 ``liger_kernel/ops/`` ``rms_norm.py``, ``swiglu.py``,
``rope.py``; ``utils.py`` ``ensure_contiguous``.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.dtypes import FP32, DType
from memplan.engine.autograd import PyNode, ReusingNode, needs_grad
from memplan.engine.ops.split import Slot, Slots
from memplan.engine.ops.views import contiguous, transpose
from memplan.engine.reduction import sum_to
from memplan.engine.state import S, no_grad
from memplan.engine.tensor import Shape, Storage, Tensor, alias, empty, numel


def as_rows(x: Tensor) -> Tensor:
    """``x.view(-1, x.shape[-1])``."""
    return alias(x, (numel(x.shape[:-1]), x.shape[-1]))


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """``LigerRMSNormFunction``: saves x, the weight and a root a row; dX takes the place of dY.

    The weight's gradient is one row a multiprocessor in fp32, then their sum.
    """
    shape, wants_weight, weight_dtype = x.shape, weight.requires_grad, weight.dtype

    def backward(grad: Tensor) -> tuple[Tensor, Tensor | None]:
        grad = contiguous(grad)
        partial = empty((S.kernels.sm_count, shape[-1]), FP32) if wants_weight else None
        dx = alias(as_rows(grad), shape)
        dw = None
        if partial is not None:
            dw = sum_to(partial, (shape[-1],))
            dw = dw if weight_dtype is FP32 else empty(dw.shape, weight_dtype)
        return dx, dw

    with no_grad():
        rows = as_rows(contiguous(x))
        y = empty(rows.shape, x.dtype)
        root = empty(rows.shape[:1], FP32)
    if not needs_grad(x, weight):
        return alias(y, shape)
    return PyNode((x, weight), (rows, weight, root), backward).finish(alias(y, shape))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``LigerSiLUMulFunction``: saves both inputs, and writes their gradients over them."""
    shape, dtype = gate.shape, gate.dtype

    def backward(grad: Tensor, saved: Sequence[Storage]) -> tuple[Tensor, Tensor]:
        grad = contiguous(grad)
        return over(saved[0], shape, dtype), over(saved[1], shape, dtype)

    with no_grad():
        a, b = as_rows(contiguous(gate)), as_rows(contiguous(up))
        out = alias(empty(a.shape, dtype), shape)
    if not needs_grad(gate, up):
        return out
    node = ReusingNode((gate, up), (a, b), backward)  # type: ignore[arg-type]
    return node.finish(out)


def over(storage: Storage, shape: Shape, dtype: DType) -> Tensor:
    """A gradient written over what was saved, and seen as a view of it."""
    return Tensor(shape, dtype, storage, None, True)


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """``LigerRopeFunction``: rotates in place where heads come last in memory; saves cos and sin.

    q: (B, H, S, D), k: (B, KV, S, D), both views of (B, S, heads, D).
    """
    with no_grad():
        q_out, k_out = rotated(q), rotated(k)
    if needs_grad(q, k):
        record_pair((q, k), (q_out, k_out), (cos, sin))
    return q_out, k_out


def rotated(x: Tensor) -> Tensor:
    """``x.transpose(1, 2).contiguous()``, rotated in place and seen as (B, H, S, D) again."""
    return transpose(contiguous(transpose(x, 1, 2)), 1, 2)


def record_pair(
    inputs: tuple[Tensor, Tensor], outs: tuple[Tensor, Tensor], saved: tuple[Tensor, Tensor]
) -> None:
    """One node with two outputs; each gradient is rotated as its input was."""
    slots: Slots = [None, None]

    def backward(grads: Slots) -> list[Tensor | None]:
        return [None if g is None else rotated(g) for g in grads]

    node = PyNode(inputs, saved, backward)  # type: ignore[arg-type]
    node.shape, node.dtype = inputs[0].shape, inputs[0].dtype
    for number, out in enumerate(outs):
        out.requires_grad, out.node = True, Slot(node, slots, number, out)
