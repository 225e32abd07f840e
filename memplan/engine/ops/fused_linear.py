"""Liger's fused linear layer and cross entropy: the gradients are made in the forward, chunk-wise.

Logits are there for one chunk of tokens at a time, about as large as the hidden states.

Source: linkedin/Liger-Kernel v0.8.5 ``liger_kernel/ops/fused_linear_cross_entropy.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.dtypes import BOOL, FP32, INT64, DType
from memplan.engine.autograd import ReusingNode, needs_grad
from memplan.engine.ops.matmul import product, workspace
from memplan.engine.ops.pointwise import cast
from memplan.engine.reduction import borrow_full
from memplan.engine.sizes import ceil_div
from memplan.engine.state import S, count_flops, no_grad
from memplan.engine.tensor import Storage, Tensor, alias, empty


def fused_linear_cross_entropy(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The loss of ``x @ weight.T`` against ``target``, summed or averaged.

    Args:
        x: (tokens, hidden).
        weight: (vocabulary, hidden).
        target: (tokens,).
    """
    wants = x.requires_grad, weight.requires_grad
    with no_grad():
        loss, grad_x, grad_weight = forward(x, weight, target, *wants)
    if not needs_grad(x, weight):
        return loss
    shapes = x.shape, weight.shape
    dtypes = x.dtype, weight.dtype
    has_weight = grad_weight is not None

    def backward(grad: Tensor, saved: Sequence[Storage]) -> list[Tensor | None]:
        compare_with_one()
        g_x = Tensor(shapes[0], dtypes[0], saved[0])
        g_weight = Tensor(shapes[1], dtypes[1], saved[1]) if has_weight else None
        return [g_x if wants[0] else None, g_weight]

    kept = (grad_x,) if grad_weight is None else (grad_x, grad_weight)
    node = ReusingNode((x, weight), kept, backward)  # type: ignore[arg-type]
    return node.finish(loss)


def compare_with_one() -> None:
    """``torch.equal(grad_output, torch.tensor(1.0))``; a factor is multiplied in place."""
    one = empty((), FP32)
    equal = empty((), BOOL)
    every = empty((), BOOL)
    del every, equal, one


def forward(
    x: Tensor, weight: Tensor, target: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss and the gradients of both, chunk by chunk."""
    (tokens, hidden), vocabulary = x.shape, weight.shape[0]
    size = chunk_size(tokens, hidden, vocabulary)
    grad_x = empty(x.shape, x.dtype)
    grad_weight = empty(weight.shape, weight.dtype) if wants_x and wants_weight else None
    loss_1d = empty((tokens,), FP32)
    mask = empty(target.shape, BOOL)
    count_true(tokens)
    in_place = writes_in_place(x, weight)
    logits = empty((size, vocabulary), x.dtype) if in_place else None
    for start in range(0, tokens, size):
        rows = min(size, tokens - start)
        chunk(alias(x, (rows, hidden)), weight, logits, grad_weight, wants_x=wants_x)
    del logits
    loss = empty((), FP32)
    borrow_full(tokens, FP32.itemsize)
    del mask, loss_1d
    return loss, grad_x, grad_weight


def chunk_size(tokens: int, hidden: int, vocabulary: int) -> int:
    """Tokens whose logits take no more room than all hidden states, rounded up to a power of two.

    >>> chunk_size(4096, 4096, 32000), chunk_size(100, 64, 50)
    (512, 100)
    """
    wanted = ceil_div(tokens, ceil_div(vocabulary, hidden))
    return int(min(1 << (wanted - 1).bit_length(), tokens))


def count_true(n: int) -> None:
    """``mask.sum().item()``."""
    total = empty((), INT64)
    borrow_full(n, INT64.itemsize)
    del total


def writes_in_place(x: Tensor, weight: Tensor) -> bool:
    """Whether products go to blocks that are there: ``out=`` passes autocast by."""
    return x.dtype is weight.dtype and S.autocast in (None, x.dtype)


def chunk(
    x: Tensor, weight: Tensor, logits: Tensor | None, grad_weight: Tensor | None, *, wants_x: bool
) -> None:
    """Logits of some tokens, their gradient in the same place, and what it gives to both inputs."""
    made = None
    if logits is None:
        made = out_of_place(x, weight)
    workspace()
    dtype = x.dtype if made is None else made.dtype
    if made is None:
        count_flops(2, *x.shape, weight.shape[0])
    if wants_x:
        if logits is not None and dtype is x.dtype:
            count_flops(2, *x.shape, weight.shape[0])
        else:
            input_gradient(x, weight, made)
    if grad_weight is not None:
        accumulate(x, grad_weight, dtype)
    del made


def out_of_place(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.t()`` as autocast casts it: from the last operand to the first."""
    weight_cast = cast_view(weight)
    x_cast = cast_view(x)
    return product((x.shape[0], weight.shape[0]), x_cast.dtype, weight_cast.shape[1])


def cast_view(x: Tensor) -> Tensor:
    """What autocast makes of a tensor that is no leaf: it keeps no copy of it."""
    if S.autocast is None or x.dtype is S.autocast:
        return x
    return empty(x.shape, S.autocast)


def input_gradient(x: Tensor, weight: Tensor, grad_logits: Tensor | None) -> None:
    """``grad_logits @ weight``, then copied to its rows."""
    weight = cast(weight) if S.autocast is not None else weight
    dtype = x.dtype if grad_logits is None else grad_logits.dtype
    out = product(x.shape, dtype, weight.shape[0])
    del out


def accumulate(x: Tensor, grad_weight: Tensor, dtype: DType) -> None:
    """The chunk's share of the weight's gradient: added by the product itself, or after it."""
    half, ampere = dtype is not FP32, S.kernels.compute_capability >= (8, 0)
    if half and ampere and grad_weight.dtype in (FP32, dtype):
        aligned = x if x.dtype is dtype else empty(x.shape, dtype)
        count_flops(2, *x.shape, grad_weight.shape[0])
        del aligned
        return
    x = cast_view(x)
    made = product(grad_weight.shape, dtype, x.shape[0])
    wide = made if dtype is FP32 else empty(made.shape, FP32)
    del wide, made
