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
    ("lion_32bit", "lion"),
    ("rmsprop_bnb_32bit", "rmsprop_bnb"),
)
IN_8_BITS = (
    *("adamw_8bit", "paged_adamw_8bit", "ademamix_8bit", "paged_ademamix_8bit"),
    *("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"),
)
OPTIMIZERS_MODELLED = (
    *("adamw_fused", "adamw_foreach", "adamw_loop", "paged_adamw_32bit", *IN_8_BITS),
    *("ademamix", "paged_ademamix_32bit", "lion", "paged_lion_32bit", "rmsprop_bnb"),
    *("adafactor", "muon", "apollo_adamw", "apollo_adamw_layerwise", "schedule_free_adamw"),
    *("schedule_free_radam", "schedule_free_sgd", "grokadamw", "rmsprop", "adagrad", "sgd"),
    *("sgd_momentum", "none"),
)
OPTIMIZERS_NOT_MODELLED = (
    *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision", "adamw_torch_4bit"),
    *("adamw_torch_8bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
    *("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise"),
    *("lomo", "adalomo", "stable_adamw"),
)
# What no engine runs, and why: nothing for it can be installed here, or it compiles its kernels.
OPTIMIZERS_NOT_RUN = {
    "adamw_torch_xla": "it is torch_xla's, for TPUs; adamw_fused keeps the same states",
    "adamw_torch_npu_fused": "it is torch_npu's, for Ascend; adamw_fused keeps the same states",
    "adamw_anyprecision": "it is torchdistx's, which no index has; with weights in bfloat16, "
    "adamw_foreach keeps its states in bfloat16 too",
    "adamw_torch_8bit": "torchao compiles its step with Triton, which a virtual GPU does not run; "
    "adamw_8bit keeps about as much",
    "adamw_torch_4bit": "torchao compiles its step with Triton, which a virtual GPU does not run; "
    "adamw_8bit keeps about twice as much",
    "stable_adamw": "torch-optimi's kernels are Triton's, which a virtual GPU does not run; "
    "adamw_foreach keeps as much but for the Kahan sums",
}
# Of `optim_args`, what moves memory: optimizers that take it.
OPTIM_ARGS = {"min_8bit_size": IN_8_BITS, "rank": ("apollo_adamw", "apollo_adamw_layerwise")}

# torchao's weight-only schemes: a scale a row, or a scale for as many elements of a row.
GROUP_SIZES = (32, 64, 128, 256)
TORCHAO = tuple(
    f"{name}{group}"
    for name in ("int8-torchao", "fp8")
    for group in ("", *(f"-g{size}" for size in GROUP_SIZES))
)
# hqq's groups of weights, 64 where none is named.
HQQ = ("hqq-4bit", *(f"hqq-4bit-g{size}" for size in GROUP_SIZES))

CHOICES: dict[str, Choice] = {
    "library": Choice(("transformers",), ("litgpt", "torchtune")),
    "loop": Choice(("trainer", "plain")),
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
        ("none", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8", *TORCHAO, *HQQ),
        ("gptq-4bit", "awq-4bit", "int4-torchao"),
    ),
    "optimizer": Choice(
        OPTIMIZERS_MODELLED,
        OPTIMIZERS_NOT_MODELLED,
        OPTIMIZER_ALIASES,
    ),
    "attention": Choice(
        ("sdpa", "sdpa-math", "sdpa-efficient", "sdpa-flash", "eager"), ("flash_attention_2",)
    ),
    "attention_mask": Choice(("none", "padding")),
    "loss": Choice(("full", "fused_linear"), ("chunked",)),
    "kernels": Choice(("eager", "liger")),
    "eval": Choice(("none", "loss", "predictions")),
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
# Older releases of which what differs is modelled, from source.
OLD_VERSIONS = {"bitsandbytes": ("0.42", "0.42.0", "0.43.1")}
