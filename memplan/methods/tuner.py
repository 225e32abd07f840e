"""What PEFT's tuners share: freeze, wrap the targets, move and cast what was put beside them.

An adapter's tensors are made on the host and moved, in the dtype in which the base layer computes,
in the order in which a layer lists their names; afterwards 16-bit ones are cast up one by one.

Source: huggingface/peft v0.21.2 tuners/tuners_utils.py ``BaseTuner.inject_adapter``,
``BaseTunerLayer._move_adapter_to_device_of_base_layer``, ``cast_adapter_dtype``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.engine.tensor import Shape
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.full import freeze_all
from memplan.methods.lora import train_biases
from memplan.methods.modules_to_save import replace_child, save_modules, submodule
from memplan.methods.targets import Targets
from memplan.workload import Workload


class Entry(Module):
    """The one tensor of a ``ParameterDict``, under the adapter's name."""

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.default = parameter(shape, dtype)


class TunerLayer(Module):
    """``BaseTunerLayer``: a base layer, and an adapter's tensors beside it."""

    base_layer: Any

    def __init__(self, base_layer: Linear) -> None:
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features

    def entry(self, *shape: int) -> Entry:
        """A tensor of a ``ParameterDict``, moved to the base layer."""
        return Entry(shape, self.base_layer.compute_dtype)

    def adapter_tensors(self) -> Iterator[tuple[Module, str]]:
        """(owner, attribute) of the parameters beside the base layer, as they are registered."""
        for name, child in self.named_children():
            if name != "base_layer":
                for _, owner, attribute, _ in child.named_parameters():
                    yield owner, attribute

    def cast_adapter(self) -> None:
        """``cast_adapter_dtype``."""
        for owner, name in self.adapter_tensors():
            cast_up(owner, name)


Make = Callable[[Any, str, int], TunerLayer]


def bits_of(base_layer: Module) -> int:
    """4 or 8 of a layer of bitsandbytes, else 0."""
    bits: int = getattr(base_layer, "bits", 0)
    return bits


def cast_up(owner: Module, name: str) -> None:
    """A 16-bit parameter becomes fp32 before the old one goes."""
    old: Tensor = getattr(owner, name)
    if old.dtype is BF16 or old.dtype is FP16:
        with building_layer(old.layer, old.copies):
            setattr(owner, name, parameter(old.shape, FP32, old.requires_grad))


def tune(
    model: Module, workload: Workload, make: Make, after: Callable[[], None] | None = None
) -> list[TunerLayer]:
    """``get_peft_model``: freeze, wrap the targets, copy the modules to save, cast the adapters.

    ``after`` is ``_post_injection_hook``, if the method has one.

    Raises:
        ConfigError: The targets match no module, or one that PEFT refuses.
    """
    refuse_quantization(workload)
    made = inject(model, workload, make)
    adapted: list[Any] = made
    train_biases(model, adapted, workload.bias)
    save_modules(model, workload.modules_to_save)
    if after is not None:
        after()
    if workload.adapter_dtype == "float32":
        for layer in made:
            layer.cast_adapter()
    return made


def targets_of(model: Module, workload: Workload) -> list[tuple[str, Linear]]:
    """(qualified name, module) of what is adapted, in the order of registration.

    Raises:
        ConfigError: Nothing is.
        UnsupportedError: It is no linear layer.
    """
    found = [(name, submodule(model, name)) for name in Targets.of(workload).find(model)]
    if not found:
        raise ConfigError(
            f"target_modules: {workload.target_modules!r} match no module of the model that "
            "modules_to_save leaves to the adapter."
        )
    for name, base_layer in found:
        if not isinstance(base_layer, Linear):
            raise UnsupportedError(
                f"target_modules: {name} is a {type(base_layer).__name__}; of {workload.method} "
                "only linear layers are modelled."
            )
    return found  # type: ignore[return-value]


def require_targets(model: Any, workload: Workload, model_types: tuple[str, ...]) -> None:
    """Refuse a method whose own list of default targets lacks the model's type.

    Raises:
        ConfigError: No ``target_modules`` are given, and PEFT has none.
    """
    model_type = model.config.model_type
    if not workload.target_modules and model_type not in model_types:
        raise ConfigError(
            f"target_modules: PEFT has no default of {workload.method} for {model_type}; name some."
        )


def refuse_quantization(workload: Workload) -> None:
    """Of quantised layers only those of bitsandbytes are mirrored under these methods.

    Raises:
        UnsupportedError: They are another's.
    """
    if workload.quantization.split("-")[0] not in ("none", "int8", "nf4", "fp4") or (
        "torchao" in workload.quantization
    ):
        raise UnsupportedError(
            f"method {workload.method} over {workload.quantization} is not modelled; over none, "
            "int8, nf4, nf4-dq, fp4 and fp4-dq it is."
        )


def inject(model: Module, workload: Workload, make: Make) -> list[TunerLayer]:
    """``inject_adapter``: wrap each target."""
    freeze_all(model)
    targets = Targets.of(workload)
    made = []
    for name, base_layer in targets_of(model, workload):
        parent, _, child = name.rpartition(".")
        weight = next(base_layer.parameters())
        with building_layer(weight.layer, weight.copies):
            rank = targets.rank(name, workload.rank)
            made.append(make(base_layer, name, rank))
        replace_child(submodule(model, parent), child, made[-1])
    return made
