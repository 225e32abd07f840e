"""What memplan saves, makes and frees in one call of an op, and what torch does."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.dtypes import DTYPES
from memplan.engine.autograd import run_from
from memplan.engine.kernels import Kernels
from memplan.engine.layout import elementwise_strides
from memplan.engine.ops.views import swap
from memplan.engine.state import S, run
from memplan.engine.tape import Tape
from memplan.engine.tensor import Storage, Tensor, empty, normal, restrided, strides_of
from tests.engine.case import Arg, Case

Saved = tuple[str, tuple[int, ...], str, int]
Events = list[int]
FREED_BEFORE = -(1 << 40)


def labels(storages: Sequence[int], known: dict[int, str]) -> list[str]:
    """A name for each storage: which argument's it is, the output's, or the n-th other's."""
    new: dict[int, str] = {}
    return [known.get(s) or new.setdefault(s, f"new{len(new)}") for s in storages]


def settled(events: Sequence[int]) -> Events:
    """Frees that no allocation separates may come in any order: the allocator ends up the same."""
    out: Events = []
    frees: Events = []
    for e in events:
        if e >= 0:
            out += [*sorted(frees), e]
            frees = []
        else:
            frees.append(e)
    return out + sorted(frees)


def memplan_arg(a: Arg) -> Tensor:
    """The tensor of an argument."""
    dtype = DTYPES[a.dtype]
    if a.swap is None:
        return empty(a.shape, dtype)
    base = empty(swap(a.shape, *a.swap), dtype)
    return restrided(base, a.shape, normal(a.shape, swap(strides_of(base), *a.swap)))


def saved_by_memplan(case: Case, mask: Sequence[bool]) -> tuple[bool, list[Saved]]:
    """Whether the output requires a gradient, and (whose storage, shape, dtype, bytes) saved."""
    with run(Tape(), Kernels()):
        args = [memplan_arg(a) for a in case.args]
        for a, required in zip(args, mask, strict=True):
            a.requires_grad = required
        seen: list[Tensor] = []

        def pack(t: Tensor) -> Tensor:
            seen.append(t)
            return t

        S.hooks = (pack, lambda t: t)
        out = case.memplan(*args)
        S.hooks = None
        known = {id(out.storage): "out"} | {id(a.storage): f"arg{i}" for i, a in enumerate(args)}
        names = labels([id(t.storage) for t in seen], known)
        rows = [
            (n, t.shape, t.dtype.name, t.storage.nbytes) for n, t in zip(names, seen, strict=True)
        ]
        return out.requires_grad, rows


def gradient_of(out: Tensor) -> Tensor:
    """``torch.zeros_like(out)``."""
    return empty(out.shape, out.dtype, elementwise_strides(out.shape, (out,)))


def events_of_memplan(
    case: Case, mask: Sequence[bool], kernels: Kernels | None = None
) -> tuple[Events, Events]:
    """Blocks made (bytes) and freed (~number) in forward and in backward."""
    with run(Tape(), kernels or Kernels()) as tape:
        S.workspaces = {"main": Storage(1), "autograd": Storage(1)}
        args = [memplan_arg(a) for a in case.args]
        for a, required in zip(args, mask, strict=True):
            a.requires_grad = required
        start = len(tape.events)
        out = case.memplan(*args)
        middle = resumed = len(tape.events)
        if out.node is not None:
            gradient = gradient_of(out)
            resumed = len(tape.events)
            run_from(out, gradient)
        end = len(tape.events)
        return numbered(list(tape.events), ((start, middle), (resumed, end)))


def numbered(events: list[int], spans: Sequence[tuple[int, int]]) -> tuple[Events, Events]:
    """The events of each span, blocks numbered from 0; what held no bytes is left out."""
    number: dict[int, int] = {}
    out: list[Events] = []
    for low, high in spans:
        part: Events = []
        for i in range(low, high):
            e = events[i]
            if e > 0:
                number[i] = len(number)
                part.append(e)
            elif e < 0 and events[~e] > 0:
                part.append(~number[~e] if ~e in number else FREED_BEFORE)
        out.append(settled(part))
    return out[0], out[1]
