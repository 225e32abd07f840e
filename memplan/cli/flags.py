"""The workload's keys as flags: one table, read by every command that takes a workload."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from memplan.cli.options import Option
from memplan.errors import ConfigError
from memplan.values import COUNTS, FLAGS, MESH_KEYS
from memplan.vocabulary import CHOICES
from memplan.workload import DEFAULTS, KEYS, load_workload

FILE = Option(
    name="workload",
    flag="--workload",
    metavar="FILE",
    help="JSON, YAML or TOML with these keys; flags override.",
)
JSON = Option(name="as_json", flag="--json", help="Print JSON, sizes in bytes.")
HELP = {
    "model": "Preset or alias (memplan models), config.json, or checkpoint folder.",
    "library": "Whose modelling code is mirrored.",
    "loop": "Training loop: plain, or trainer (transformers' own).",
    "dtype": "Dtype in which the weights are loaded.",
    "autocast": "torch.autocast around the forward; float16 adds a GradScaler.",
    "method": "What trains (memplan methods); any PEFT type on the virtual engine.",
    "rank": "The adapter's r.",
    "alpha": "LoRA's alpha; moves no memory.",
    "dropout": "LoRA's dropout.",
    "target_modules": "Names with commas, all-linear, or a regular expression.",
    "modules_to_save": "Modules trained in full beside the adapter, with commas.",
    "bias": "Which biases LoRA trains.",
    "adapter_dtype": "float32: 16-bit adapters are cast up, as PEFT does; base: they are not.",
    "adapters": "LoRA adapters that are loaded; the first of them trains.",
    "num_virtual_tokens": "Length of the soft prompt.",
    "num_trainable_layers": "How many of the last decoder layers last_layers trains.",
    "trainable": "With full: regular expressions, with commas; what they find trains.",
    "peft_config": "Further keys of the PEFT config, as JSON.",
    "quantization": "How bitsandbytes stores the base model.",
    "prepare_kbit": "Whether prepare_model_for_kbit_training runs.",
    "optimizer": "Optimizer and implementation; TrainingArguments.optim values too.",
    "optim_args": "The optimizer's own arguments, as JSON: min_8bit_size, rank.",
    "micro_batch_size": "Sequences per forward.",
    "seq_len": "Padded length of each sequence, in tokens.",
    "gradient_accumulation_steps": "Forwards and backwards per optimizer step.",
    "activation_checkpointing": "false, true (use_reentrant=False) or reentrant.",
    "attention": "Attention implementation, or one SDPA kernel forced.",
    "attention_mask": "padding: a 4-D mask reaches the kernel.",
    "loss": "How the loss is computed.",
    "kernels": "Whose kernels run.",
    "max_grad_norm": "Gradient clipping; 0 is off.",
    "keep_outputs": "Keep a step's outputs until the next step's.",
    "use_cache": "transformers' config.use_cache in training.",
    "versions": "Library versions where behaviour differs, as JSON.",
    "steps": "Optimizer steps; the peaks are over all of them.",
    "eval": "What the Trainer evaluates after the last step.",
    "eval_batches": "Batches that it evaluates.",
    "eval_micro_batch_size": "Sequences per forward there.",
    "eval_accumulation_steps": "Batches after which predictions go to the host; 0: at the end.",
    "save": "Whether the Trainer writes a checkpoint after the last step.",
    "strategy": "How the run is spread over devices: single, ddp or fsdp2.",
    "dp_size": "Data parallel size: over how many devices ddp or fsdp2 runs.",
    "tp_size": "Tensor parallel size.",
    "pp_size": "Pipeline parallel size.",
    "cp_size": "Context parallel size.",
    "ep_size": "Expert parallel size.",
    "offload": "What lives on the host.",
    "gpu": "Name (memplan gpus) or capacity (24GiB); says whether the run fits.",
}
INTEGERS = frozenset((*COUNTS, *MESH_KEYS, "eval_accumulation_steps"))
NUMBERS = frozenset(("alpha", "dropout", "max_grad_norm"))
MAPPINGS = frozenset(("peft_config", "optim_args", "versions"))
# Keys of which the byte engine takes one value, and the virtual one more.
WIDER = frozenset(("strategy",))
# Keys whose flags may stand without a value, and have a --no- form.
SWITCHES = frozenset((*FLAGS, "activation_checkpointing"))


def flag_name(key: str) -> str:
    """``micro_batch_size`` as ``--micro-batch-size``."""
    return "--" + key.replace("_", "-")


def workload_options(*, without: Collection[str] = ()) -> tuple[Option, ...]:
    """One option for each key of a workload."""
    return tuple(
        Option(
            name=key,
            flag=flag_name(key),
            help=_help(key),
            metavar=_metavar(key),
            alone="true" if key in SWITCHES else "",
            hidden=_has_one_value(key),
        )
        for key in KEYS
        if key not in without
    )


def _has_one_value(key: str) -> bool:
    """Whether no engine runs anything but the default yet: no help to anybody reading the help."""
    if key in MESH_KEYS:
        return key != "dp_size"
    return key in CHOICES and len(CHOICES[key].modelled) == 1 and key not in WIDER


def _help(key: str) -> str:
    text = HELP[key]
    if key in CHOICES and key not in WIDER:
        text += f" One of {', '.join(CHOICES[key].modelled)}."
    default = DEFAULTS.get(key)
    if default in (None, {}, ()):
        return text
    return f"{text} [default: {str(default).lower()}]"


def _metavar(key: str) -> str:
    if key in INTEGERS or key in NUMBERS:
        return "N"
    return "JSON" if key in MAPPINGS else "TEXT"


def read_workload(file: str | None, flags: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a workload file, overridden by the flags that were given."""
    keys = {} if file is None else load_workload(file)
    return {**keys, **read_flags(flags)}


def read_flags(flags: Mapping[str, str]) -> dict[str, Any]:
    """The keys that were given, as values that the workload checks."""
    return {key: read_flag(key, text) for key, text in flags.items()}


def read_flag(key: str, text: str) -> Any:
    """The value that a flag's text means; text that means none is left for the workload to refuse.

    >>> read_flag("rank", "8"), read_flag("rank", "1.5"), read_flag("rank", "many")
    (8, 1.5, 'many')
    >>> read_flag("use_cache", "true"), read_flag("model", "7")
    (True, '7')
    """
    if key in INTEGERS or key in NUMBERS:
        return _read_number(text)
    if key in FLAGS:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if key in MAPPINGS:
        return _read_mapping(key, text)
    return text


def _read_number(text: str) -> int | float | str:
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return float(text)
    return text


def _read_mapping(key: str, text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(
            f'{key}: expected JSON such as \'{{"key": "value"}}\', got {text[:80]!r}.'
        ) from None


def split_list(flag: str, text: str) -> tuple[str, ...]:
    """The entries of a comma list, each once, in the order given."""
    entries = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not entries:
        raise ConfigError(f"{flag}: expected entries with commas, got {text!r}.")
    return entries
