"""A frozen model: what every method but the full one starts from."""

from __future__ import annotations

from memplan.engine.nn import Module
from memplan.workload import Workload


def freeze_all(model: Module, workload: Workload | None = None) -> Module:
    """``model.requires_grad_(False)``."""
    for p in model.parameters():
        p.requires_grad = False
    return model
