"""Which keys of PEFT's configurations memplan takes, by method, and which values it models."""

from __future__ import annotations

# Keys of PEFT configs that `peft_config` takes, with the values that move no memory or are
# modelled. The others raise. Source: huggingface/peft v0.21.2 tuners/lora/config.py `LoraConfig`,
# tuners/lora/layer.py `reset_lora_parameters` (in place for these values), and
# tuners/prompt_tuning/config.py `PromptTuningConfig`.
PEFT_CONFIG: dict[str, dict[str, tuple[object, ...]]] = {
    "lora": {
        "use_rslora": (False, True),
        "init_lora_weights": (True, False, "gaussian"),
        "fan_in_fan_out": (False,),
        "lora_bias": (False,),
        "use_dora": (False,),
        "inference_mode": (False,),
    },
    "prompt_tuning": {
        "prompt_tuning_init": ("RANDOM",),
        "inference_mode": (False,),
    },
}

# Further keys of a LoRA config that say which modules are adapted, and with which rank.
PEFT_SELECTORS = (
    *("layers_to_transform", "layers_pattern", "exclude_modules", "rank_pattern", "alpha_pattern"),
)

# PEFT's words for keys that a workload has a word of its own for.
PEFT_WORDS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "modules_to_save": "modules_to_save",
    "num_virtual_tokens": "num_virtual_tokens",
}
