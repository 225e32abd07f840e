"""What torch keeps per thread or per process, kept here per thread and per run.

An estimate sets it up with ``run`` and leaves nothing behind, so estimates in several threads do
not meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from memplan.dtypes import DType
from memplan.engine.interpreter import require_reference_counts
from memplan.engine.kernels import Kernels
from memplan.engine.tape import OUTSIDE, Tape

if TYPE_CHECKING:
    from memplan.engine.tensor import Storage, Tensor

Hooks = tuple[Callable[["Tensor"], Any], Callable[[Any], Any] | None]


class State(threading.local):
    """The state of the run in this thread.

    Attributes:
        tape: Where allocations and frees are recorded.
        kernels: The GPU whose kernels are assumed.
        grad_enabled: Grad mode.
        training: Whether modules are in training mode.
        hooks: (pack, unpack) of ``torch.autograd.graph.saved_tensors_hooks``, or none.
        autocast: The dtype that autocast casts to, or none.
        cast_cache: autocast's weight cache: {leaf: its cast}, while a region is open.
        thread: ``main`` or ``autograd``: each has a cuBLAS handle of its own.
        meta: Parameters are made without storage (``torch.device("meta")``).
        workspaces: thread -> cuBLAS workspace, kept for as long as the process.
        layer: The decoder layer that is being built; its parameters remember it.
        copies: How many identical layers it stands for.
        after_accumulate: Called with a leaf once its gradient is there
            (``register_post_accumulate_grad_hook``), if anything is.
    """

    tape: Tape = Tape()
    kernels: Kernels = Kernels()
    grad_enabled: bool = True
    training: bool = True
    hooks: Hooks | None = None
    autocast: DType | None = None
    cast_cache: dict[Tensor, Tensor] | None = None
    thread: str = "main"
    meta: bool = False
    workspaces: dict[str, Storage]
    node_count: int = 0
    layer: int = OUTSIDE
    copies: int = 1
    after_accumulate: Callable[[Tensor], None] | None = None


S = State()


def count_flops(*factors: int) -> None:
    """Tell a tape that counts what a kernel computes: the product of these. [FLOPs]

    They are multiplied only then: of a grid, each is an array.
    """
    if S.tape.counts:
        S.tape.compute(prod(factors))


@contextmanager
def run(tape: Tape, kernels: Kernels) -> Iterator[Tape]:
    """A fresh state in this thread for the length of a run; what was there comes back after it."""
    require_reference_counts()
    before = dict(S.__dict__)
    S.__dict__.clear()
    S.tape, S.kernels, S.workspaces = tape, kernels, {}
    try:
        yield tape
    finally:
        S.__dict__.clear()
        S.__dict__.update(before)


class no_grad:
    """``torch.no_grad``; with ``enabled=True``, ``torch.enable_grad``."""

    __slots__ = ("before", "enabled")

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled

    def __enter__(self) -> None:
        self.before, S.grad_enabled = S.grad_enabled, self.enabled

    def __exit__(self, *exc: object) -> None:
        S.grad_enabled = self.before


class evaluation:
    """``model.eval()`` until it is left, and ``torch.no_grad``."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before, S.training, S.grad_enabled = (S.training, S.grad_enabled), False, False

    def __exit__(self, *exc: object) -> None:
        S.training, S.grad_enabled = self.before


class autocast:
    """``torch.autocast``: the outermost region owns the cache of cast weights.

    Source:
        pytorch/pytorch v2.14.1 ``torch/amp/autocast_mode.py``: the cache is cleared when nesting
        ends.
    """

    __slots__ = ("before", "dtype")

    def __init__(self, dtype: DType | None) -> None:
        self.dtype = dtype

    def __enter__(self) -> None:
        self.before = S.autocast, S.cast_cache
        if self.dtype is not None and S.cast_cache is None:
            S.cast_cache = {}
        S.autocast = self.dtype

    def __exit__(self, *exc: object) -> None:
        S.autocast, S.cast_cache = self.before
