"""(IA)3 as PEFT runs it: a trained vector times the output of a layer, or times its input.

Source: huggingface/peft v0.21.2 peft/tuners/ia3/layer.py, bnb.py, model.py; peft/utils/constants.py
``TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING`` and ``..._FEEDFORWARD_MODULES_MAPPING``.
"""

from __future__ import annotations

import re
from typing import Any

from memplan import checks
from memplan.dtypes import FP32
from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module, parameter
from memplan.engine.ops.pointwise import mul, scale, to
from memplan.engine.ops.views import clone, view
from memplan.errors import ConfigError
from memplan.methods.modules_to_save import save_modules
from memplan.methods.wrapping import cast_parameter, of_model_type, wrap_targets
from memplan.workload import Workload

TARGETS: dict[str, tuple[str, ...]] = {
    "llama": ("k_proj", "v_proj", "down_proj"),
    "mistral": ("k_proj", "v_proj", "down_proj"),
    "qwen2": ("q_proj", "v_proj", "down_proj"),
    "qwen3": ("q_proj", "v_proj", "down_proj"),
}
FEEDFORWARD = ("down_proj",)
"""PEFT's ``feedforward_modules`` of all these model types."""


class IA3Linear(Module):
    """``peft.tuners.ia3.layer.Linear``: the vector is made in fp32 and moved in the base's dtype.

    Attributes:
        ia3_l: (1, in_features) of a feed-forward layer, else (out_features, 1).
        is_feedforward: Whether the input is scaled, and not the output.
    """

    def __init__(self, base_layer: Linear, is_feedforward: bool) -> None:
        self.base_layer = base_layer
        self.is_feedforward = is_feedforward
        shape = (1, base_layer.in_features) if is_feedforward else (base_layer.out_features, 1)
        self.ia3_l = parameter(shape, base_layer.compute_dtype)

    def scaling(self) -> Tensor:
        """``1 * ia3_l.flatten()``."""
        n, m = self.ia3_l.shape
        return scale(view(self.ia3_l, (n * m,)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        ia3_scaling = self.scaling()
        if self.is_feedforward:
            x = to(x, self.ia3_l.dtype)
            interm = to(mul(x, ia3_scaling), previous_dtype)
            result: Tensor = self.base_layer(interm)
        else:
            result = self.base_layer(x)
            result_dtype = result.dtype
            result = to(mul(result, ia3_scaling), result_dtype)
        return result


class IA3Linear8bitLt(IA3Linear):
    """``peft.tuners.ia3.bnb.Linear8bitLt``: in fp32 outside autocast, and so is the result."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        ia3_scaling = self.scaling()
        if S.autocast is None:
            x = to(x, FP32)
        if self.is_feedforward:
            result: Tensor = self.base_layer(mul(x, ia3_scaling))
        else:
            result = self.base_layer(x)
            result = mul(result, ia3_scaling)
        return self.finished(result)

    def finished(self, result: Tensor) -> Tensor:
        """What leaves the layer."""
        return result


class IA3Linear4bit(IA3Linear8bitLt):
    """``peft.tuners.ia3.bnb.Linear4bit``: the result is cloned, too."""

    def finished(self, result: Tensor) -> Tensor:
        """A clone."""
        result = clone(result)
        return result


CLASSES: dict[int | None, type[IA3Linear]] = {None: IA3Linear, 4: IA3Linear4bit, 8: IA3Linear8bitLt}


def apply(model: Any, workload: Workload) -> Any:
    """``get_peft_model`` of an ``IA3Config``."""
    check_dtypes(workload)
    feedforward = feedforward_modules(workload)

    def wrapper(base_layer: Any, name: str) -> IA3Linear:
        return linear_class(base_layer, name)(base_layer, is_feedforward(name, feedforward))

    default = of_model_type(TARGETS, model, "target_modules")
    made = wrap_targets(model, workload, default=default, make=wrapper)
    save_modules(model, workload.modules_to_save)
    if workload.adapter_dtype == "float32":
        for layer in made:
            cast_parameter(layer, "ia3_l")
    return model


def linear_class(base_layer: Module, name: str) -> type[IA3Linear]:
    """The wrapper of a layer: PEFT's dispatch by its class."""
    if not isinstance(base_layer, Linear):
        raise ConfigError(
            f"target_modules: {name} is a {type(base_layer).__name__}; ia3 takes linear layers."
        )
    return CLASSES[getattr(base_layer, "bits", None)]


def feedforward_modules(workload: Workload) -> str | tuple[str, ...]:
    """Which of the targets have their input scaled.

    Raises:
        ConfigError: They are no subset of the targets, where both are lists.
    """
    given = workload.peft_config.get("feedforward_modules")
    if given is None:
        return FEEDFORWARD
    if isinstance(given, str):
        return given
    names = checks.names(given, "peft_config: feedforward_modules")
    targets = workload.target_modules
    if isinstance(targets, tuple) and not set(names) <= set(targets):
        raise ConfigError(
            f"peft_config: feedforward_modules: {', '.join(names)} must be among the "
            f"target_modules, {', '.join(targets)}."
        )
    return names


def is_feedforward(name: str, feedforward: str | tuple[str, ...]) -> bool:
    """``_check_target_module_feedforward``: by the end of the name, dot or not, or in full."""
    if isinstance(feedforward, str):
        return re.fullmatch(feedforward, name) is not None
    return name.endswith(feedforward)


def check_dtypes(workload: Workload) -> None:
    """Refuse a 16-bit model that meets the fp32 outputs of quantised layers.

    Attention and the head take no mixture of dtypes; autocast casts, and so does
    ``prepare_model_for_kbit_training``, which leaves nothing in 16 bits.
    """
    plain = workload.autocast == "none" and workload.dtype != "float32"
    if workload.is_quantized and not workload.prepares_kbit and plain:
        raise ConfigError(
            f"method ia3 on quantization {workload.quantization} makes float32 outputs, which the "
            f"other layers' {workload.dtype} does not go with: set prepare_kbit, or autocast."
        )
