"""A workload's method applied to a loaded model: what trains, and what is put beside it.

PEFT's methods go by PEFT's own names. A key of the workload is given to PEFT's configuration where
that has a field for it; ``peft_config`` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from memplan.evidence.runner.models import is_encoder_decoder
from memplan.evidence.runner.selective import CHOOSERS, train_chosen

Json = dict[str, Any]

# Methods whose name is not that of a PEFT type: the type, and what makes it the method.
TYPES: dict[str, tuple[str, Json]] = {
    "dora": ("lora", {"use_dora": True}),
    "rslora": ("lora", {"use_rslora": True}),
    "lora_fa": ("lora", {}),
    "llama_adapter": ("adaption_prompt", {}),
}
SCHEDULE_STEPS = 1000
"""AdaLoRA's ``total_step``: how long the schedule of ranks is; it moves no memory."""
PROMPT_LENGTH, PROMPT_LAYERS = 10, 30
"""LLaMA-Adapter's prompt tokens and adapted layers. Source: arXiv:2303.16199, section 4.1."""


def apply_method(w: Json, model: Any) -> Any:
    """The model with the method's parameters in place."""
    model = enable_checkpointing(w, model)
    if w["method"] == "full" and not w.get("trainable"):
        return model
    if w["method"] == "bottleneck_adapter":
        from memplan.evidence.runner.adapters import add_bottleneck_adapter

        return add_bottleneck_adapter(w, model)
    if w["method"] in CHOOSERS:
        return train_chosen(w, model)
    if w["method"] == "frozen":
        model.requires_grad_(False)
        return model
    import peft

    upcast = w["adapter_dtype"] == "float32"
    adapted = peft.get_peft_model(model, peft_config(w, model), autocast_adapter_dtype=upcast)
    for number in range(1, w.get("adapters", 1)):
        adapted.add_adapter(
            f"further{number}", peft_config(w, model), autocast_adapter_dtype=upcast
        )
    return adapted


def enable_checkpointing(w: Json, model: Any) -> Any:
    """Prepare a quantised model, or switch checkpointing on."""
    checkpointing = bool(w["activation_checkpointing"])
    keywords = {"use_reentrant": w["activation_checkpointing"] == "reentrant"}
    if w["quantization"] != "none" and w["prepare_kbit"] and w["method"] != "frozen":
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs=keywords,
        )
    if checkpointing:
        if w["method"] != "full":
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords)
    return model


def peft_config(w: Json, model: Any) -> Any:
    """PEFT's own configuration of the method.

    Raises:
        NotImplementedError: PEFT has no such method.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind, extra = TYPES.get(w["method"], (w["method"], {}))
    classes = {str(t.value).lower(): c for t, c in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in classes:
        raise NotImplementedError(f"PEFT {peft.__version__} has no method {kind!r}")
    decoder = is_encoder_decoder(model.config)
    task = peft.TaskType.SEQ_2_SEQ_LM if decoder else peft.TaskType.CAUSAL_LM
    own = SPECIAL[kind](w, model) if kind in SPECIAL else {}
    known = {f.name for f in fields(classes[kind])}
    common = {k: v for k, v in keys_of(w).items() if k in known}
    make: Callable[..., Any] = classes[kind]
    further = dict(w["peft_config"])
    if "runtime_config" in further:
        further["runtime_config"] = peft.LoraRuntimeConfig(**further["runtime_config"])
    return make(**{"task_type": task, **common, **own, **extra, **further})


def keys_of(w: Json) -> Json:
    """The workload's keys under each name that PEFT has for them, as far as they say something."""
    keys = {
        "r": w["rank"],
        "lora_alpha": w["alpha"],
        "alpha": w["alpha"],
        "lora_dropout": w["dropout"],
        "bias": w["bias"],
        "target_modules": w["target_modules"],
        "modules_to_save": w["modules_to_save"] or None,
        "num_virtual_tokens": w["num_virtual_tokens"],
    }
    return {k: v for k, v in keys.items() if v is not None}


def adalora(w: Json, model: Any) -> Json:
    """The rank that it starts with, and PEFT's share of it to end with."""
    target = max(1, w["rank"] * 2 // 3)  # PEFT's defaults: 12 and 8
    return {"r": 8, "init_r": w["rank"], "target_r": target, "total_step": SCHEDULE_STEPS}


def oft(w: Json, model: Any) -> Json:
    """``r`` and ``oft_block_size`` exclude each other: PEFT's default is the block size."""
    return {"r": 0}


def adaption_prompt(w: Json, model: Any) -> Json:
    """The paper's sizes, as far as the model has layers."""
    layers = min(PROMPT_LAYERS, model.config.get_text_config().num_hidden_layers)
    return {"adapter_len": PROMPT_LENGTH, "adapter_layers": layers}


SPECIAL: dict[str, Callable[[Json, Any], Json]] = {
    "adalora": adalora,
    "oft": oft,
    "adaption_prompt": adaption_prompt,
}
