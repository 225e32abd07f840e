"""Storages and tensors: shapes, dtypes and strides, and no data.

Shapes hold ints, or ``sizes.Cells`` that stand for a whole grid of ints and behave like one.
``strides`` is ``None`` for a contiguous tensor, so that the common case costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from memplan.dtypes import DType
from memplan.engine.state import S

if TYPE_CHECKING:
    from memplan.engine.autograd import AccumulateGrad, Node
    from memplan.engine.tape import Tape

Shape = tuple[int, ...]


class Storage:
    """One block of the caching allocator, given back when Python drops its last reference."""

    __slots__ = ("__weakref__", "nbytes", "number", "tape")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.tape: Tape = S.tape
        self.number = self.tape.alloc(nbytes)

    def __del__(self) -> None:
        self.tape.free(self.number)


class Tensor:
    """A view of a storage that autograd can follow.

    Attributes:
        shape: Sizes. [elements]
        strides: ``None`` for contiguous. [elements]
        is_view: Made as autograd makes views, also in backward: it keeps its base, so its storage
        has two owners and
            no gradient is ever accumulated into it. Source: pytorch/pytorch v2.14.1
            ``torch/csrc/autograd/VariableTypeUtils.h`` ``as_view``.
        node: ``grad_fn``.
        accumulator: A leaf's ``AccumulateGrad``, held weakly, as in torch: the graph owns it, and
        it owns the leaf.
        layer: The decoder layer that a parameter belongs to.
        copies: How many identical layers' parameters this one stands for.
    """

    __slots__ = (
        "__weakref__",
        "accumulator",
        "copies",
        "dtype",
        "grad",
        "is_view",
        "layer",
        "node",
        "requires_grad",
        "shape",
        "storage",
        "strides",
    )

    accumulator: ReferenceType[AccumulateGrad] | None
    copies: int
    layer: int

    def __init__(
        self,
        shape: Shape,
        dtype: DType,
        storage: Any,
        strides: Shape | None = None,
        is_view: bool = False,
    ) -> None:
        self.shape, self.dtype, self.storage, self.strides = shape, dtype, storage, strides
        self.is_view = is_view
        self.requires_grad = False
        self.node: Node | None = None
        self.grad: Tensor | None = None
        self.accumulator = None


def numel(shape: Shape) -> int:
    """Elements of a tensor of this shape."""
    n = 1
    for d in shape:
        n = n * d
    return n


def empty(shape: Shape, dtype: DType, strides: Shape | None = None) -> Tensor:
    """A new tensor in a block of its own."""
    return Tensor(shape, dtype, Storage(numel(shape) * dtype.itemsize), strides)


def alias(t: Tensor, shape: Shape, strides: Shape | None = None) -> Tensor:
    """A view as autograd makes it: it keeps its base."""
    return Tensor(shape, t.dtype, t.storage, strides, True)


def restrided(t: Tensor, shape: Shape, strides: Shape | None) -> Tensor:
    """A view made inside a kernel, below autograd: it has no base."""
    return Tensor(shape, t.dtype, t.storage, strides)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides. [elements]"""
    out, n = [], 1
    for d in reversed(shape):
        out.append(n)
        n = n * d
    return tuple(reversed(out))


def strides_of(t: Any) -> Shape:
    """The strides of a tensor, written out. [elements]"""
    return t.strides if t.strides is not None else contiguous_strides(t.shape)


def normal(shape: Shape, strides: Shape) -> Shape | None:
    """``None`` for strides that are contiguous; size-1 dimensions do not count.

    Source: pytorch/pytorch v2.14.1 ``c10/core/Contiguity.h`` ``_compute_contiguous``.
    """
    n = 1
    for d, s in zip(reversed(shape), reversed(strides), strict=True):
        if d == 1:
            continue
        if s != n:
            return strides
        n = n * d
    return None


def is_dense(t: Tensor) -> bool:
    """Whether a tensor fills its memory without overlap, in any order of dimensions.

    Source: pytorch/pytorch v2.14.1 ``c10/core/Contiguity.h``
    ``_compute_non_overlapping_and_dense``.
    """
    if t.strides is None:
        return True
    n = 1
    dims = sorted((s, d) for s, d in zip(t.strides, t.shape, strict=True) if d != 1)
    for s, d in dims:
        if s != n:
            return False
        n = n * d
    return True
