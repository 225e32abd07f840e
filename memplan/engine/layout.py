"""Strides: which layout an output gets, and when a reshape needs a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memplan.engine.tensor import Shape, is_dense, normal, strides_of


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape that two shapes broadcast to.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/ExpandUtils.cpp`` ``infer_size``.
    """
    if a is b or a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    k = len(a) - len(b)
    return a[:k] + tuple(y if x == 1 else x for x, y in zip(a[k:], b, strict=True))


def elementwise_strides(shape: Shape, tensors: Sequence[Any]) -> Shape | None:
    """The layout that ``TensorIterator`` gives an output.

    Dimensions are sorted by the operands' strides.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/TensorIterator.cpp`` ``fast_set_up``,
    ``reorder_dimensions``.
    """
    first = tensors[0]
    if first.strides is None and (len(tensors) == 1 or tensors[1].strides is None):
        return None
    if is_fast(shape, tensors):
        strides: Shape = first.strides
        return strides
    operands = [broadcast_strides(shape, t) for t in tensors]
    perm = sorted_dimensions(shape, operands)
    out, k = [0] * len(shape), 1
    for d in perm:
        out[d] = k
        k = k * shape[d]
    return normal(shape, tuple(out))


def is_fast(shape: Shape, tensors: Sequence[Any]) -> bool:
    """Whether all operands share one dense layout."""
    first = tensors[0]
    if first.strides is None or first.shape != shape or not is_dense(first):
        return False
    if len(tensors) == 1 or tensors[1].strides is first.strides:
        return True
    return bool(tensors[1].shape == shape and strides_of(tensors[1]) == first.strides)


def broadcast_strides(shape: Shape, t: Any) -> Shape:
    """The operand's strides over the broadcast shape: 0 where it is repeated."""
    k = len(shape) - len(t.shape)
    s = strides_of(t)
    return (0,) * k + tuple(
        0 if d == 1 and e != 1 else x for d, x, e in zip(t.shape, s, shape[k:], strict=True)
    )


def sorted_dimensions(shape: Shape, operands: Sequence[Shape]) -> list[int]:
    """Dimensions from the innermost out, by insertion sort, as ``reorder_dimensions``."""

    def should_swap(i: int, j: int) -> int:
        for s in operands:
            a, b = s[i], s[j]
            if a == 0 or b == 0:
                continue
            if a != b:
                return -1 if a < b else 1
            if shape[i] > shape[j]:
                return 1
        return 0

    n = len(shape)
    perm = list(range(n - 1, -1, -1))
    for i in range(1, n):
        at = i
        for j in range(i - 1, -1, -1):
            c = should_swap(perm[j], perm[at])
            if c > 0:
                perm[j], perm[at] = perm[at], perm[j]
                at = j
            elif c < 0:
                break
    return perm


def view_strides(x: Any, shape: Shape) -> Shape | bool | None:
    """Strides of ``x`` seen with another shape:

    ``None`` if contiguous, ``False`` if it takes a copy.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/TensorUtils.cpp`` ``computeStride_impl``.
    """
    if x.strides is None:
        return None
    old, strides, new = x.shape, x.strides, list(shape)
    out, v, chunk = [0] * len(new), len(new) - 1, strides[-1]
    n_t = n_v = 1
    for d in range(len(old) - 1, -1, -1):
        n_t = n_t * old[d]
        if d == 0 or (old[d - 1] != 1 and strides[d - 1] != n_t * chunk):
            while v >= 0 and (n_v < n_t or new[v] == 1):
                out[v] = n_v * chunk
                n_v = n_v * new[v]
                v -= 1
            if n_v != n_t:
                return False
            if d > 0:
                chunk, n_t, n_v = strides[d - 1], 1, 1
    return normal(shape, tuple(out)) if v == -1 else False
