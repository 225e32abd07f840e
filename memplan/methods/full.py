"""Full fine-tuning and a frozen model: the two ends, without any adapter."""

from __future__ import annotations

from memplan.engine.nn import Module
from memplan.workload import Workload


def train_all(model: Module, workload: Workload) -> Module:
    """Every parameter trains, as it was loaded."""
    return model


def freeze_all(model: Module, workload: Workload | None = None) -> Module:
    """``model.requires_grad_(False)``."""
    for p in model.parameters():
        p.requires_grad = False
    return model
