"""Views: no allocation, but a layout, and a backward that may need one.

Each op cites its entry of pytorch/pytorch v2.14.1 ``tools/autograd/derivatives.yaml``.
"""

from __future__ import annotations

from memplan.dtypes import DType, promote
from memplan.engine.autograd import attach, needs_grad
from memplan.engine.layout import view_strides
from memplan.engine.reduction import sum_to
from memplan.engine.tensor import Shape, Tensor, alias, empty, normal, strides_of


def swap(t: tuple[int, ...], i: int, j: int) -> tuple[int, ...]:
    """The tuple with two entries exchanged."""
    out = list(t)
    out[i], out[j] = out[j], out[i]
    return tuple(out)


def view(x: Tensor, shape: Shape) -> Tensor:
    """``view: self: grad.reshape(self.sizes)``."""
    strides = view_strides(x, shape) if x.strides is not None else None
    return _viewed(alias(x, shape, strides), x)  # type: ignore[arg-type]


def _viewed(out: Tensor, x: Tensor) -> Tensor:
    if needs_grad(x):
        old = x.shape
        attach(out, (x,), (), lambda grad: (reshape_raw(grad, old),))
    return out


def reshape_raw(x: Tensor, shape: Shape) -> Tensor:
    """``reshape`` below autograd: a view if the layout allows it, else a copy."""
    strides = view_strides(x, shape)
    return empty(shape, x.dtype) if strides is False else alias(x, shape, strides)  # type: ignore[arg-type]


def reshape(x: Tensor, shape: Shape) -> Tensor:
    """``reshape``: a view if the layout allows it, else ``clone`` and ``view``, two nodes."""
    strides = view_strides(x, shape)
    if strides is not False:
        return _viewed(alias(x, shape, strides), x)  # type: ignore[arg-type]
    return view(clone(x), shape)


def contiguous(x: Tensor) -> Tensor:
    """``contiguous``: itself, or a clone."""
    return x if x.strides is None else clone(x)


def clone(x: Tensor) -> Tensor:
    """``clone: self: grad``, into a contiguous tensor."""
    out = empty(x.shape, x.dtype)
    return attach(out, (x,), (), lambda grad: (grad,)) if needs_grad(x) else out


def transposed(x: Tensor, i: int, j: int) -> Tensor:
    """``transpose`` below autograd."""
    shape = swap(x.shape, i, j)
    return alias(x, shape, normal(shape, swap(strides_of(x), i, j)))


def transpose(x: Tensor, i: int, j: int) -> Tensor:
    """``transpose.int: self: grad.transpose(dim0, dim1)``."""
    out = transposed(x, i, j)
    return attach(out, (x,), (), lambda grad: (transposed(grad, i, j),)) if needs_grad(x) else out


def permuted(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``permute`` below autograd."""
    s = strides_of(x)
    shape = tuple(x.shape[d] for d in dims)
    return alias(x, shape, normal(shape, tuple(s[d] for d in dims)))


def permute(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``permute: self: permute_backwards(grad, dims)``."""
    out = permuted(x, dims)
    back = tuple(dims.index(d) for d in range(len(dims)))
    return attach(out, (x,), (), lambda grad: (permuted(grad, back),)) if needs_grad(x) else out


def unsqueeze(x: Tensor, i: int) -> Tensor:
    """``unsqueeze: self: grad.squeeze(dim)``."""
    shape, strides = (*x.shape[:i], 1, *x.shape[i:]), strides_of(x)
    out = alias(x, shape, normal(shape, (*strides[:i], 1, *strides[i:])))
    return attach(out, (x,), (), lambda grad: (squeezed(grad, i),)) if needs_grad(x) else out


def squeezed(x: Tensor, i: int) -> Tensor:
    """``squeeze`` below autograd."""
    s = strides_of(x)
    shape = x.shape[:i] + x.shape[i + 1 :]
    return alias(x, shape, normal(shape, s[:i] + s[i + 1 :]))


def expand(x: Tensor, shape: Shape) -> Tensor:
    """``expand: self: at::sum_to(grad, self.sym_sizes())``: one reduction, if any."""
    s, k = strides_of(x), len(shape) - len(x.shape)
    old = x.shape
    strides = (0,) * k + tuple(
        0 if a == 1 and b != 1 else c for a, b, c in zip(old, shape[k:], s, strict=True)
    )
    out = alias(x, shape, normal(shape, strides))

    def backward(grad: Tensor) -> tuple[Tensor]:
        return (grad if grad.shape == old else sum_to(grad, old),)

    return attach(out, (x,), (), backward) if needs_grad(x) else out


def narrow(x: Tensor, dim: int, length: int) -> Tensor:
    """``slice.Tensor: self: slice_backward_wrapper``: zeros of the whole and a copy into them.

    Where it starts is no matter.
    """
    dim %= len(x.shape)
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    out = alias(x, shape, normal(shape, strides_of(x)))
    old = x.shape
    return attach(out, (x,), (), lambda grad: (empty(old, grad.dtype),)) if needs_grad(x) else out


def join_one(x: Tensor, dtype: DType) -> Tensor:
    """``torch.cat([empty, x])``, the first one-dimensional without elements: a contiguous copy.

    The dtype of the empty tensor counts in the promotion. ``cat: tensors: cat_tensors_backward``: a
    view of the gradient.
    """
    out = empty(x.shape, promote(dtype, x.dtype))
    old = x.shape
    return (
        attach(out, (x,), (), lambda grad: (alias(grad, old, grad.strides),))
        if needs_grad(x)
        else out
    )


def repeat_batch(x: Tensor, times: int) -> Tensor:
    """``repeat(times, 1, 1)`` of (1, S, H): a copy even for one.

    ``repeat: self: repeat_backward(grad, repeats, self.sym_sizes())``: a sum over the repeats.
    """
    old = x.shape
    out = empty((times, *old[1:]), x.dtype)
    return (
        attach(out, (x,), (), lambda grad: (grad if times == 1 else sum_to(grad, old),))
        if needs_grad(x)
        else out
    )


def half(x: Tensor) -> Tensor:
    """``x[..., : n / 2]`` or ``x[..., n / 2 :]``: the same to us."""
    return narrow(x, -1, x.shape[-1] // 2)


def detach(x: Tensor) -> Tensor:
    """``detach``: a view without history."""
    return alias(x, x.shape, x.strides)
