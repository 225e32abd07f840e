"""The words that a workload's keys take: those that are modelled and those that are only known.

A workload may hold every known word. The byte engine takes those that are modelled (`coverage`);
the others are for the virtual engine, which runs the libraries themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.errors import unknown_name


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of one key.

    Attributes:
        modelled: Values that memplan models, the default first.
        known: Values that exist and that the byte engine does not model.
        aliases: Other words for a modelled value.
    """

    modelled: tuple[str, ...]
    known: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def resolve(self, value: str, key: str) -> str:
        """The known value that ``value`` means, in any case and with - for _ or the reverse."""
        names = {_fold(name): name for name in (*self.known, *self.modelled)}
        names |= {_fold(alias): name for alias, name in self.aliases}
        if _fold(value) in names:
            return names[_fold(value)]
        aliases = tuple(alias for alias, _ in self.aliases)
        raise unknown_name(key, value, {*self.modelled, *self.known, *aliases})


def _fold(value: str) -> str:
    return value.strip().lower().replace("-", "_")


# `TrainingArguments.optim` values, and what they make of a single CUDA device.
# Source: huggingface/transformers v5.18.0 training_args.py `OptimizerNames`, trainer_optimizer.py
# `_get_adamw_torch` (fused only for adamw_torch_fused), `_get_bitsandbytes_optimizer`, `_get_sgd`;
# pytorch/pytorch v2.14.1 torch/optim/adam.py and sgd.py: `_default_to_fused_or_foreach` with
# use_fused=False, so that neither given means foreach on CUDA.
OPTIMIZER_ALIASES = (
    ("adamw_torch", "adamw_foreach"),
    ("adamw_torch_fused", "adamw_fused"),
    ("adamw_bnb_8bit", "adamw_8bit"),
)
OPTIMIZERS_NOT_MODELLED = (
    *("paged_adamw_32bit", "adafactor", "lion", "lion_8bit", "galore_adamw", "muon"),
    *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision", "adamw_torch_4bit"),
    *("adamw_torch_8bit", "ademamix", "adagrad", "ademamix_8bit", "lion_32bit"),
    *("paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit"),
    *("rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw_8bit"),
    *("galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise"),
    *("galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_radam"),
    *("schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise"),
    "stable_adamw",
)

# The types that PEFT registers, in lower case, and the rank that each has by default, where it has
# one. Source: huggingface/peft v0.21.2 utils/peft_types.py `PeftType`, the config class of each.
PEFT_RANKS = {
    **{"lora": 8, "dora": 8, "rslora": 8, "lora_fa": 8, "adalora": 12, "adamss": 100, "deft": 8},
    **{"delora": 8, "glora": 8, "gralora": 32, "hira": 32, "hra": 8, "lily": 32, "loha": 8},
    **{"lokr": 8, "miss": 64, "peanut": 32, "poly": 8, "psoft": 32, "pvera": 256, "randlora": 32},
    **{"shadow": 8, "shira": 32, "tinylora": 2, "unilora": 4, "vblora": 4, "vera": 256},
}
PEFT_PROMPTS = (
    *("prompt_tuning", "prefix_tuning", "p_tuning", "cartridge", "cpt"),
    "multitask_prompt_tuning",
)
PEFT_WITHOUT_RANK = (
    *("oft", "boft", "ia3", "ln_tuning", "beft", "c3a", "fourierft", "frod", "osf", "road"),
    *("supertuning", "trainable_tokens", "waveft"),
)
PEFT_OTHER = ("llama_adapter", "adaption_prompt", "xlora")
METHODS_OF_PEFT = (*PEFT_RANKS, *PEFT_PROMPTS, *PEFT_WITHOUT_RANK, *PEFT_OTHER)
METHODS_OF_NOBODY = (  # of papers; no engine runs them yet
    *("bottleneck_adapter", "bitfit", "llama_adapter_v2", "last_layers", "embeddings_only"),
)
METHODS = ("full", "lora", "prompt_tuning", "frozen")
METHODS_NOT_MODELLED = (
    *(name for name in METHODS_OF_PEFT if name not in METHODS),
    *METHODS_OF_NOBODY,
)

CHOICES: dict[str, Choice] = {
    "library": Choice(("transformers",), ("litgpt", "torchtune")),
    "loop": Choice(("plain",), ("trainer",)),
    "dtype": Choice(
        ("bfloat16", "float16", "float32"),
        aliases=(("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")),
    ),
    "autocast": Choice(
        ("none", "bfloat16", "float16"), aliases=(("bf16", "bfloat16"), ("fp16", "float16"))
    ),
    "method": Choice(METHODS, METHODS_NOT_MODELLED),
    "bias": Choice(("none", "all", "lora_only")),
    "adapter_dtype": Choice(("float32", "base")),
    "quantization": Choice(
        ("none", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8"),
        ("gptq-4bit", "awq-4bit", "hqq-4bit", "fp8"),
    ),
    "optimizer": Choice(
        (
            *("adamw_fused", "adamw_foreach", "adamw_loop", "adamw_8bit", "paged_adamw_8bit"),
            *("sgd", "sgd_momentum", "none"),
        ),
        OPTIMIZERS_NOT_MODELLED,
        OPTIMIZER_ALIASES,
    ),
    "attention": Choice(
        ("sdpa", "sdpa-math", "sdpa-efficient", "sdpa-flash", "eager"), ("flash_attention_2",)
    ),
    "attention_mask": Choice(("none", "padding")),
    "loss": Choice(("full",), ("chunked", "fused_linear")),
    "kernels": Choice(("eager",), ("liger",)),
    "strategy": Choice(("single",), ("ddp", "zero1", "zero2", "zero3", "fsdp2")),
    "offload": Choice(("none",), ("optimizer", "params")),
}

# Versions whose behaviour is modelled: the newest that the virtual GPU was built with.
VERSIONS = {
    "torch": "2.14.1",
    "transformers": "5.18.0",
    "peft": "0.21.2",
    "bitsandbytes": "0.50.2",
}

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
