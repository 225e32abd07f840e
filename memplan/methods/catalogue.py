"""What each method does to a loaded model."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Module
from memplan.errors import unknown_name
from memplan.methods import lora
from memplan.workload import Workload


def full(model: Module, workload: Workload) -> None:
    """Every parameter trains."""


def frozen(model: Module, workload: Workload) -> None:
    """No parameter trains."""
    for p in model.parameters():
        p.requires_grad = False


METHODS: dict[str, Callable[[Module, Workload], None]] = {
    "full": full,
    "frozen": frozen,
    "lora": lora.apply,
}


def apply_method(model: Module, workload: Workload) -> None:
    """Change the model as the workload's method does."""
    method = METHODS.get(workload.method)
    if method is None:
        raise unknown_name("method", workload.method, METHODS)
    method(model, workload)
