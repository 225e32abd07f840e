"""LN tuning as PEFT runs it: a trained copy of each norm; the original stays, frozen and idle.

Source: huggingface/peft v0.21.2 peft/tuners/ln_tuning/layer.py, model.py; peft/utils/constants.py
``TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING``.
"""

from __future__ import annotations

from typing import Any

from memplan.engine import Tensor
from memplan.engine.nn import Module, RMSNorm
from memplan.errors import UnsupportedError
from memplan.methods.modules_to_save import deep_copy, save_modules
from memplan.methods.wrapping import of_model_type, wrap_targets
from memplan.workload import Workload

LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
QWEN_NORMS = ("post_attention_layernorm",)
TARGETS: dict[str, tuple[str, ...]] = {
    "llama": LLAMA_NORMS,
    "mistral": LLAMA_NORMS,
    "qwen2": QWEN_NORMS,
    "qwen3": QWEN_NORMS,
}


class LNTuningLayer(Module):
    """``LNTuningLayer``: the copy keeps the dtype of the original; PEFT casts none of them."""

    def __init__(self, base_layer: Module) -> None:
        self.base_layer = base_layer
        self.ln_tuning_layers = deep_copy(base_layer)

    def forward(self, x: Tensor) -> Tensor:
        """The copy's forward."""
        result: Tensor = self.ln_tuning_layers(x)
        return result


def apply(model: Any, workload: Workload) -> Any:
    """``get_peft_model`` of an ``LNTuningConfig``."""
    default = of_model_type(TARGETS, model, "target_modules")
    wrap_targets(model, workload, default=default, make=tuned)
    save_modules(model, workload.modules_to_save)
    return model


def tuned(base_layer: Module, name: str) -> LNTuningLayer:
    """The wrapper of a norm; PEFT would copy any module."""
    if not isinstance(base_layer, RMSNorm):
        raise UnsupportedError(
            f"target_modules: {name} is no norm; ln_tuning of other modules is not modelled."
        )
    return LNTuningLayer(base_layer)
