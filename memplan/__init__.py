"""memplan: the GPU memory of a fine-tuning run, to the byte, before anybody rents a GPU.

The names below are loaded when they are first used, so that ``import memplan`` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memplan.engines import estimate
    from memplan.errors import ConfigError, MemplanError, MissingError, UnsupportedError
    from memplan.evidence.watch import watch
    from memplan.planner.compare import Comparison, compare
    from memplan.planner.sweep import sweep
    from memplan.results import Estimate
    from memplan.workload import Workload

__version__ = "0.1.0"

_HOMES = {
    "estimate": "memplan.engines",
    "compare": "memplan.planner.compare",
    "sweep": "memplan.planner.sweep",
    "watch": "memplan.evidence.watch",
    "Workload": "memplan.workload",
    "Estimate": "memplan.results",
    "Comparison": "memplan.planner.compare",
    "MemplanError": "memplan.errors",
    "ConfigError": "memplan.errors",
    "UnsupportedError": "memplan.errors",
    "MissingError": "memplan.errors",
}
__all__ = [
    "estimate",
    "compare",
    "sweep",
    "watch",
    "Workload",
    "Estimate",
    "Comparison",
    "MemplanError",
    "ConfigError",
    "UnsupportedError",
    "MissingError",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'memplan' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``memplan.estimate`` the function.

    Importing the submodule of that name would otherwise bind the module over it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Bind a public function where the import system brings its module."""
        if name in _HOMES and isinstance(value, ModuleType):
            value = __getattr__(name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
