"""BEFT as PEFT runs it: a trained bias added to the output of a linear layer.

Source: huggingface/peft v0.21.2 peft/tuners/beft/layer.py, model.py; peft/utils/constants.py
``TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING``.
"""

from __future__ import annotations

from typing import Any

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, parameter
from memplan.engine.ops.pointwise import add, to
from memplan.engine.ops.views import view
from memplan.errors import ConfigError
from memplan.methods.modules_to_save import save_modules
from memplan.methods.wrapping import cast_parameter, wrap_targets
from memplan.workload import Workload

TARGETS = ("v_proj",)
"""PEFT's default of llama, mistral, qwen2 and qwen3 alike."""


class BeftLinear(Module):
    """``peft.tuners.beft.layer.Linear``, of packed layers, too.

    Attributes:
        beft_bias: (1, out_features).
    """

    def __init__(self, base_layer: Any, name: str) -> None:
        if not isinstance(base_layer, Linear):
            raise ConfigError(
                f"target_modules: {name} is a {type(base_layer).__name__}; beft takes linear "
                "layers."
            )
        self.base_layer = base_layer
        self.beft_bias = parameter((1, base_layer.out_features), base_layer.compute_dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features), in the dtype of the base's result."""
        current_bias = view(self.beft_bias, (self.beft_bias.shape[1],))
        result: Tensor = self.base_layer(x)
        orig_dtype = result.dtype
        result = to(add(result, current_bias), orig_dtype)
        return result


def apply(model: Any, workload: Workload) -> Any:
    """``get_peft_model`` of a ``BeftConfig``."""
    made = wrap_targets(model, workload, default=TARGETS, make=BeftLinear)
    save_modules(model, workload.modules_to_save)
    if workload.adapter_dtype == "float32":
        for layer in made:
            cast_parameter(layer, "beft_bias")
    return model
