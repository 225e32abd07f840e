"""Optimizers: one small class each, which allocates what the real one does, when it does.

A formula of bytes per parameter would be shorter. But states appear in the middle of the first
step, between gradients and temporaries, and the allocator's peak depends on where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memplan.engine.tensor import Tensor
from memplan.optimizers.adamw import AdamWForeach, AdamWFused, AdamWLoop
from memplan.optimizers.adamw_8bit import AdamW8bit, PagedAdamW8bit
from memplan.optimizers.base import Optimizer
from memplan.optimizers.clip import clip_grad_norm
from memplan.optimizers.grad_scaler import GradScaler
from memplan.optimizers.sgd import SGD, SGDMomentum
from memplan.registry import Registry

Build = Callable[[Iterable[Tensor]], Optimizer | None]

OPTIMIZERS: Registry[Build] = Registry("optimizer")
"""Workload name -> what makes the optimizer of some parameters."""

OPTIMIZERS.add("adamw_fused", AdamWFused)
OPTIMIZERS.add("adamw_foreach", AdamWForeach)
OPTIMIZERS.add("adamw_loop", AdamWLoop)
OPTIMIZERS.add("adamw_8bit", AdamW8bit)
OPTIMIZERS.add("paged_adamw_8bit", PagedAdamW8bit)
OPTIMIZERS.add("sgd", SGD)
OPTIMIZERS.add("sgd_momentum", SGDMomentum)
OPTIMIZERS.add("none", lambda params: None)

__all__ = ["Build", "GradScaler", "OPTIMIZERS", "Optimizer", "clip_grad_norm"]
