"""What each method does to a loaded model."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Module
from memplan.errors import unknown_name
from memplan.methods import (
    adaption_prompt,
    beft,
    bottleneck_adapter,
    cartridge,
    full,
    ia3,
    ln_tuning,
    lora,
    p_tuning,
    prefix_tuning,
    prompt_tuning,
    selective,
    trainable_tokens,
    tuners,
)
from memplan.workload import Workload

METHODS: dict[str, Callable[[Module, Workload], Module]] = {
    "full": selective.train_chosen,
    "frozen": full.freeze_all,
    "bitfit": selective.bitfit,
    "last_layers": selective.last_layers,
    "embeddings_only": selective.embeddings_only,
    "ln_tuning": ln_tuning.apply,
    "trainable_tokens": trainable_tokens.apply,
    "ia3": ia3.apply,
    "beft": beft.apply,
    "llama_adapter": adaption_prompt.apply,
    "adaption_prompt": adaption_prompt.apply,
    "lora": lora.apply,
    "rslora": lora.apply,
    "dora": lora.apply,
    "lora_fa": lora.apply,
    "prompt_tuning": prompt_tuning.apply,
    "prefix_tuning": prefix_tuning.apply,
    "p_tuning": p_tuning.apply,
    "cartridge": cartridge.apply,
    "bottleneck_adapter": bottleneck_adapter.apply,
    **tuners.METHODS,
}


def apply_method(model: Module, workload: Workload) -> Module:
    """The model as the workload's method changes it."""
    method = METHODS.get(workload.method)
    if method is None:
        raise unknown_name("method", workload.method, METHODS)
    return method(model, workload)
