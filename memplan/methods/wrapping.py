"""``inject_adapter`` of PEFT's tuners: freeze the model, and wrap each module that is a target.

Source: huggingface/peft v0.21.2 peft/tuners/tuners_utils.py ``BaseTuner.inject_adapter``,
``_move_adapter_to_device_of_base_layer``, ``cast_adapter_dtype``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine.nn import Module, building_layer, parameter
from memplan.errors import ConfigError
from memplan.methods.full import freeze_all
from memplan.methods.modules_to_save import replace_child, submodule
from memplan.methods.targets import Targets
from memplan.workload import Workload

Wrapper = TypeVar("Wrapper", bound=Module)


def wrap_targets(
    model: Any,
    workload: Workload,
    *,
    default: Sequence[str],
    make: Callable[[Any, str], Wrapper],
) -> list[Wrapper]:
    """Wrap each target, in the order of the modules' registration; the wrappers.

    Args:
        model: The model; it is frozen.
        workload: Whose ``target_modules`` and further PEFT keys are read.
        default: Targets where the workload names none.
        make: The wrapper of a module of a qualified name.

    Raises:
        ConfigError: The targets match no module.
    """
    freeze_all(model)
    targets = replace(Targets.of(workload), modules=workload.target_modules or tuple(default))
    names = targets.find(model)
    if not names:
        raise ConfigError(f"target_modules: {targets.modules!r} match no module of the model.")
    made = []
    for name in names:
        parent, _, child = name.rpartition(".")
        base_layer = submodule(model, name)
        weight = next(base_layer.parameters())
        with building_layer(weight.layer, weight.copies):
            made.append(make(base_layer, name))
        replace_child(submodule(model, parent), child, made[-1])
    return made


def of_model_type(table: dict[str, tuple[str, ...]], model: Any, key: str) -> tuple[str, ...]:
    """PEFT's default of one of its keys, which goes by the type of the model.

    Raises:
        ConfigError: PEFT has none for it.
    """
    found = table.get(model.config.model_type)
    if found is None:
        raise ConfigError(f"{key}: PEFT has no default for {model.config.model_type}; give it.")
    return found


def cast_parameter(owner: Module, name: str) -> None:
    """``cast_adapter_dtype`` of one parameter: from 16 bits to fp32."""
    old = getattr(owner, name)
    if old.dtype is BF16 or old.dtype is FP16:
        with building_layer(old.layer, old.copies):
            setattr(owner, name, parameter(old.shape, FP32))
    del old
