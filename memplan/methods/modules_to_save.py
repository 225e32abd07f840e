"""Modules that are trained in full beside an adapter: copies, in the base's dtype.

Source: huggingface/peft v0.21.2 peft/utils/other.py ``ModulesToSaveWrapper``, ``_set_trainable``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from memplan.dtypes import INT8, INT32, UINT8
from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.full import freeze_all
from memplan.methods.targets import is_saved

PACKED = (UINT8, INT8, INT32)


class ModulesToSaveWrapper(Module):
    """Runs a trainable copy; the original stays, frozen."""

    def __init__(self, original_module: Module, tied_weight: Tensor | None = None) -> None:
        self.original_module = original_module
        self.modules_to_save = (
            deep_copy(original_module) if tied_weight is None else linear_around(tied_weight)
        )
        freeze_all(original_module)
        self.further: list[Module] = []

    def add_copy(self) -> None:
        """A copy of a further adapter, which is not active."""
        self.further = [*self.further, freeze_all(deep_copy(self.original_module))]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The copy's forward."""
        return self.modules_to_save(*args, **kwargs)


def linear_around(weight: Tensor) -> Linear:
    """A layer whose weight is another module's."""
    S.meta = True
    made = Linear(weight.shape[1], weight.shape[0], weight.dtype)
    S.meta = False
    made.weight = weight
    return made


def deep_copy(module: Module) -> Module:
    """``copy.deepcopy``: a clone of each parameter, this module's own before its children's."""
    made = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            with building_layer(value.layer, value.copies):
                setattr(made, name, parameter(value.shape, value.dtype))
    for name, value in vars(module).items():
        if isinstance(value, Module):
            setattr(made, name, deep_copy(value))
    return made


def save_modules(model: Module, modules_to_save: Sequence[str]) -> None:
    """Wrap each module whose name ends so; one that nothing matches is passed over, as in PEFT."""
    names = [n for n, _ in model.named_modules() if n and is_saved(n, modules_to_save)]
    for name in names:
        if any(name.startswith(f"{other}.") for other in names):
            raise UnsupportedError(f"modules_to_save: {name} lies within another of them.")
    for name in names:
        refuse_packed(submodule(model, name), name)
    for name in names:
        parent, _, child = name.rpartition(".")
        wrapper = ModulesToSaveWrapper(submodule(model, name))
        replace_child(submodule(model, parent), child, wrapper)


def refuse_packed(module: Module, name: str) -> None:
    """Torch trains no whole numbers, and PEFT wants every parameter of a copy to train.

    Raises:
        ConfigError: A parameter is packed.
    """
    if any(p.dtype in PACKED for p in module.parameters()):
        raise ConfigError(
            f"modules_to_save: {name} is quantised, and only tensors of floating point dtype can "
            "require gradients; save what is not quantised, such as lm_head."
        )


def submodule(model: Module, name: str) -> Module:
    """The module of a qualified name; items of a list are named by their number."""
    found: Any = model
    for part in name.split(".") if name else ():
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert isinstance(found, (Module, list))
    return found  # type: ignore[return-value]


def replace_child(owner: Any, name: str, module: Module) -> None:
    """``setattr(parent, name, module)``: the new module takes the old one's place in the order."""
    if isinstance(owner, list):
        owner[int(name)] = module
    else:
        setattr(owner, name, module)
