"""What each method does to a loaded model."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Module
from memplan.errors import unknown_name
from memplan.methods import full, lora, prompt_tuning
from memplan.workload import Workload

METHODS: dict[str, Callable[[Module, Workload], Module]] = {
    "full": full.train_all,
    "frozen": full.freeze_all,
    "lora": lora.apply,
    "prompt_tuning": prompt_tuning.apply,
}


def apply_method(model: Module, workload: Workload) -> Module:
    """The model as the workload's method changes it."""
    method = METHODS.get(workload.method)
    if method is None:
        raise unknown_name("method", workload.method, METHODS)
    return method(model, workload)
