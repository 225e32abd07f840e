"""The words that a workload's keys take: those that are modelled and those that are only known.

A workload may hold every known word. The byte engine takes those that are modelled (`coverage`);
the others are for the virtual engine, which runs the libraries themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.errors import unknown_name
from memplan.method_table import ROWS


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
    "method": Choice(
        tuple(row.name for row in ROWS if row.modelled),
        tuple(row.name for row in ROWS if not row.modelled),
    ),
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
