"""A Triton whose kernels launch nothing, for Python code that is written around them.

On a virtual GPU no kernel computes, and Triton's compiler has no device to compile for. What such
code allocates, it asks torch for, before and after its kernels: with launches that do nothing it
runs as it is. Kernels that are tuned by timing them are refused: timing borrows memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

VERSION = "3.0.0"  # what libraries ask for at least


class Anything:
    """Stands for whatever a kernel's source names: it is never run."""

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Anything:
        """As a function, a decorator, an annotation."""
        return Anything()


class Kernel:
    """``@triton.jit``: a grid, and a launch that does nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        """What launches on a grid."""
        return lambda *args, **kwargs: None


class Constant:
    """``tl.constexpr``: a value that kernels and the host both read."""

    def __init__(self, value: Any) -> None:
        self.value = value


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A kernel, or the decorator that makes one."""
    return Kernel if function is None else Kernel(function)


def autotune(*args: Any, **kwargs: Any) -> Any:
    """Refused when a kernel that is tuned is launched."""
    return lambda kernel: _Tuned()


class _Tuned:
    def __getitem__(self, grid: Any) -> Any:
        raise NotImplementedError("a Triton kernel that is tuned by timing it, on a virtual GPU")


def heuristics(values: Any) -> Any:
    """The kernel itself."""
    return lambda kernel: kernel


def cdiv(x: int, y: int) -> int:
    """``x / y``, rounded up."""
    return -(-x // y)


def next_power_of_2(n: int) -> int:
    """The least power of two that is not below ``n``.

    >>> [next_power_of_2(n) for n in (1, 3, 1024, 1025)]
    [1, 4, 1024, 2048]
    """
    return 1 << (n - 1).bit_length()


class _Module(ModuleType):
    """A module of Triton: the functions above, and anything."""

    __path__: list[str] = []  # noqa: RUF012 - of the import system
    __version__ = VERSION

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return FUNCTIONS.get(name, Anything())


class _Finder(MetaPathFinder, Loader):
    """Answers for ``triton`` and everything in it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for each of its modules."""
        if fullname.partition(".")[0] != "triton":
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


FUNCTIONS = {
    "jit": jit,
    "autotune": autotune,
    "heuristics": heuristics,
    "cdiv": cdiv,
    "constexpr": Constant,
    "next_power_of_2": next_power_of_2,
}


def install() -> None:
    """Let this process import ``triton``, unless a real one is there."""
    if find_spec("triton") is None:
        sys.meta_path.append(_Finder())
