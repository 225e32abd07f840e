"""One call of an op: how memplan makes it, how torch does, on which tensors.

``torch`` is passed to the second as an argument, so that the tables load without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

Swap = tuple[int, int]
FLOATS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Arg:
    """A tensor given to an op; ``swap``: two dimensions exchanged, so that it is not contiguous."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    swap: Swap | None = None

    @property
    def may_require_grad(self) -> bool:
        """Whether it is a float."""
        return self.dtype in FLOATS


@dataclass(frozen=True, slots=True)
class Case:
    """One call.

    Attributes:
        name: Unique.
        ops: The functions of memplan that it covers.
        memplan: The call in memplan.
        torch: The same in torch, which is the first argument.
        args: What both are given.
        exact: Saved tensors agree in shape; where memplan makes one node of several of torch's,
            a tensor may be saved as another view: then storages are compared.
        cuda_only: Why CPU torch cannot say: it takes another kernel there.
    """

    name: str
    ops: tuple[Callable[..., Any], ...]
    memplan: Callable[..., Any]
    torch: Callable[..., Any]
    args: tuple[Arg, ...]
    exact: bool = True
    cuda_only: str = ""

    def masks(self) -> list[tuple[bool, ...]]:
        """Every choice of which floats require a gradient."""
        return list(
            product(*((False, True) if a.may_require_grad else (False,) for a in self.args))
        )

    def key(self, mask: tuple[bool, ...]) -> str:
        """The name of one choice of gradients."""
        return f"{self.name} {''.join('01'[required] for required in mask)}"


def simple(
    name: str, op: Callable[..., Any], torch: Callable[..., Any], *args: Arg, **more: Any
) -> Case:
    """An op that is called with its tensors and nothing else."""
    return Case(name, (op,), op, torch, args, **more)


X = Arg((2, 6, 8))
SWAPPED = Arg((2, 6, 8), swap=(1, 2))
HALF = Arg((2, 6, 8), "bfloat16")
HEADS = Arg((2, 4, 6, 8), swap=(1, 2))
W, B, Q = Arg((5, 8)), Arg((5,)), Arg((2, 4, 6, 8))
