"""``torch.nn.utils.clip_grad_norm_``: a norm of every gradient, the norm of those, one factor.

Source:
    pytorch/pytorch v2.14.1 ``torch/nn/utils/clip_grad.py``,
    ``aten/src/ATen/native/cuda/ForeachReduceOp.cu`` ``foreach_tensor_norm_cuda``.
"""

from __future__ import annotations

from functools import reduce

from memplan.dtypes import FP32, DType, promote
from memplan.engine.sizes import ceil_div
from memplan.engine.tensor import Tensor, empty, numel
from memplan.optimizers.base import by_dtype, count, in_layers

CHUNK = 65536
"""Elements of a chunk (``kChunkSize``, ``aten/src/ATen/native/cuda/MultiTensorApply.cuh``)."""


def clip_grad_norm(params: list[Tensor]) -> Tensor | None:
    """Clip all together in place; their norm, or none where there is no gradient."""
    trained = [p for p in params if p.grad is not None]
    if not trained:
        return None
    total_norm = norm_of_norms(trained)
    clip_coefficient(total_norm.dtype)
    return total_norm


def clip_own_norm(p: Tensor) -> None:
    """Clip one parameter's gradient by itself, as for each of the layers that it stands for."""
    norms = foreach_norm([p], 1)
    stacked = empty((1,), p.dtype)
    total_norm = empty((), p.dtype)
    del stacked, norms
    clip_coefficient(total_norm.dtype)


def norm_of_norms(params: list[Tensor]) -> Tensor:
    """``_get_total_norm``: ``norms`` lives until it returns, the stack only as an argument.

    The last norm, a reduction to one number, borrows no buffer: it would from several 100,000
    gradients on (``memplan.engine.reduction``).
    """
    norms: list[Tensor] = []
    for group in by_dtype(params):
        norms += foreach_norm(group, count(group))
    dtype = reduce(promote, {p.dtype: None for p in params})
    stacked = empty((count(params),), dtype)
    total_norm = empty((), dtype)
    del stacked
    return total_norm


def foreach_norm(params: list[Tensor], number: int) -> list[Tensor]:
    """``_foreach_norm``: zeros for the largest gradient's chunks, times all; then the norms.

    Args:
        params: Those that are there.
        number: How many they stand for.
    """
    most = max(ceil_div(numel(p.shape), CHUNK) for p in params)
    partial = empty((number * most,), FP32)
    norms = [empty((), p.dtype) for p in in_layers(params)]
    del partial
    return norms


def clip_coefficient(dtype: DType) -> None:
    """``torch.clamp(max_norm / (total_norm + 1e-6), max=1.0)``; the gradients are scaled in place.

    A number divided by a tensor is ``tensor.reciprocal() * number``
    (``torch/_tensor.py`` ``__rdiv__``).
    """
    shifted = empty((), dtype)
    reciprocal = empty((), dtype)
    clip_coef = empty((), dtype)
    del reciprocal, shifted
    clip_coef_clamped = empty((), dtype)
    del clip_coef, clip_coef_clamped
