"""Which keys of PEFT's configurations memplan takes, by method, and which values it models."""

from __future__ import annotations

from memplan.lora_options import LORA_METHODS, LORA_OPTIONS
from memplan.option_values import Checked, Decimal, Share, Text, Whole
from memplan.tuner_options import TUNER_OPTIONS

# Keys of PEFT configs that `peft_config` takes, with the values that move no memory or are
# modelled. The others raise. Source: huggingface/peft v0.21.2 tuners/*/config.py.
ADAPTION_PROMPT: dict[str, tuple[object, ...]] = {
    "adapter_len": (Whole(1),),
    "adapter_layers": (Whole(1),),
    "inference_mode": (False,),
}
PEFT_CONFIG: dict[str, dict[str, tuple[object, ...]]] = {
    **dict.fromkeys(LORA_METHODS, LORA_OPTIONS),
    "prompt_tuning": {
        "prompt_tuning_init": ("RANDOM", "SAMPLE_VOCAB", "TEXT"),
        "prompt_tuning_init_text": (None, Text()),
        "tokenizer_name_or_path": (None, Text()),
        "tokenizer_kwargs": (None,),
        "inference_mode": (False,),
    },
    **TUNER_OPTIONS,
    "ln_tuning": {"exclude_modules": (Checked("modules"),), "inference_mode": (False,)},
    "ia3": {
        "feedforward_modules": (Checked("modules"),),
        "exclude_modules": (Checked("modules"),),
        "init_ia3_weights": (True, False),
        "fan_in_fan_out": (False,),
        "inference_mode": (False,),
    },
    "beft": {"init_weights": (True, False), "inference_mode": (False,)},
    "trainable_tokens": {
        "token_indices": (Checked("a list of tokens"),),
        "init_weights": (True,),
        "inference_mode": (False,),
    },
    "llama_adapter": ADAPTION_PROMPT,
    "adaption_prompt": ADAPTION_PROMPT,
    "prefix_tuning": {
        "prefix_projection": (False, True),
        "encoder_hidden_size": (None, Whole(1)),
        "init_weights": (None, "zero"),
        "inference_mode": (False,),
    },
    "cartridge": {"num_frozen_tokens": (Whole(0),), "inference_mode": (False,)},
    "bottleneck_adapter": {
        "config": ("seq_bn", "double_seq_bn", "par_bn", "pfeiffer", "houlsby", "parallel"),
        "reduction_factor": (Whole(1),),
        "non_linearity": ("relu", "swish", "silu", "tanh"),
        "mh_adapter": (False, True),
        "output_adapter": (False, True),
        "original_ln_before": (False, True),
        "original_ln_after": (False, True),
        "residual_before_ln": (False, True),
        "dropout": (Share(),),
        "init_weights": ("bert", "mam_adapter", "houlsby"),
        "ln_before": (False,),
        "ln_after": (False,),
        "use_gating": (False,),
        "phm_layer": (False,),
        "inv_adapter": (None,),
        "scaling": (Decimal(),),  # one that is learned, or one a channel, is a parameter more
        "leave_out": (None,),
    },
    "p_tuning": {
        "encoder_reparameterization_type": ("MLP",),
        "encoder_hidden_size": (None, Whole(1)),
        "encoder_num_layers": (Whole(1),),  # an MLP has three layers whatever it says
        "encoder_dropout": (Share(),),  # an MLP drops nothing
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
