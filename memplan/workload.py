"""What is to be run: one frozen record, validated once, with the same keys everywhere.

The keys serve the Python API, the command line, workload files and JSON output. A record and not
a dict, so that deeper code reads attributes that were checked and never asks again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from memplan.combinations import METHOD_KEYS, settle
from memplan.errors import ConfigError, unknown_name
from memplan.files import read_mapping
from memplan.lora_options import LORA_METHODS
from memplan.method_table import BY_NAME
from memplan.values import EVAL_KEYS, MESH_KEYS, checked_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One training run.

    Attributes:
        model: Preset, alias, path to a ``config.json`` or checkpoint folder, or a mapping with
            Hugging Face config keys.
        library: Whose modelling code is mirrored.
        loop: ``trainer``: transformers' Trainer; ``plain``: forward, loss, backward, step. By
            default the Trainer, and the plain loop for what the Trainer does not run.
        dtype: Dtype in which the weights are loaded.
        autocast: Dtype of ``torch.autocast`` around the forward; ``float16`` adds a GradScaler.
        method: What trains.
        rank: The adapter's ``r``; where it is not given, `resolve` takes PEFT's of the method.
        alpha: LoRA's ``lora_alpha``; it moves no memory.
        dropout: LoRA's ``lora_dropout``.
        target_modules: Names, ``all-linear``, a regular expression that PEFT matches in full, or
            none for PEFT's default of the model type.
        modules_to_save: Modules trained in full beside the adapter.
        bias: Which biases LoRA trains.
        adapter_dtype: ``float32``: 16-bit adapters are cast up, as PEFT does by default;
            ``base``: they keep the base's dtype (``autocast_adapter_dtype=False``).
        adapters: LoRA adapters that are loaded; the first of them trains.
        num_virtual_tokens: Length of a soft prompt. [tokens]
        num_trainable_layers: How many of the last decoder layers ``last_layers`` trains.
        trainable: Regular expressions; with the method ``full``, the parameters in whose
            qualified name one of them is found train, and the others are frozen.
        peft_config: Further keys of the PEFT config; of bottleneck_adapter, those of the adapters
            library: ``config`` (seq_bn, double_seq_bn or par_bn), ``reduction_factor``.
        quantization: How the frozen linear layers are stored, and by whose library; ``-g64``: with
            a scale for as many elements.
        prepare_kbit: Whether ``prepare_model_for_kbit_training`` runs on a quantised model.
        optimizer: Optimizer and implementation.
        optim_args: The optimizer's own arguments that move memory, as TrainingArguments takes them.
        micro_batch_size: Sequences per forward.
        seq_len: Length of each sequence after padding. [tokens]
        gradient_accumulation_steps: Forwards and backwards per optimizer step.
        activation_checkpointing: ``False``, ``True`` (``use_reentrant=False``) or ``"reentrant"``.
        attention: Attention implementation, or the SDPA kernel that is forced.
        attention_mask: ``padding``: a 4-D mask reaches the kernel.
        loss: How the loss is computed.
        kernels: Whose kernels run.
        max_grad_norm: Gradient clipping; 0 is off.
        keep_outputs: Whether a step's model outputs live until the next step's.
        use_cache: transformers' ``config.use_cache`` in training.
        versions: Library versions, where behaviour differs.
        steps: Optimizer steps that are run; the peaks are over all of them.
        eval: What the Trainer evaluates after the last step: the ``loss``, or the ``predictions``
            too, which ``compute_metrics`` is given.
        eval_batches: Batches that it evaluates.
        eval_micro_batch_size: Sequences per forward there (HF: ``per_device_eval_batch_size``).
        eval_accumulation_steps: Batches after which predictions go to the host; 0 is at the end.
        save: Whether the Trainer writes a checkpoint after the last step.
        strategy: How the run is spread over devices.
        dp_size: Data parallel size.
        tp_size: Tensor parallel size.
        pp_size: Pipeline parallel size.
        cp_size: Context parallel size.
        ep_size: Expert parallel size.
        offload: What lives on the host.
        gpu: Catalogue name, a capacity, or none.
    """

    model: str | Mapping[str, Any]
    library: str = "transformers"
    loop: str | None = None
    dtype: str = "bfloat16"
    autocast: str = "none"
    method: str = "full"
    rank: int = 8
    alpha: float = 8
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    adapter_dtype: str = "float32"
    adapters: int = 1
    num_virtual_tokens: int = 20
    num_trainable_layers: int = 2
    trainable: tuple[str, ...] = ()
    peft_config: Mapping[str, Any] = field(default_factory=dict)
    quantization: str = "none"
    prepare_kbit: bool = True
    optimizer: str = "adamw_fused"
    optim_args: Mapping[str, Any] = field(default_factory=dict)
    micro_batch_size: int = 1
    seq_len: int = 2048
    gradient_accumulation_steps: int = 1
    activation_checkpointing: bool | str = False
    attention: str = "sdpa"
    attention_mask: str = "none"
    loss: str = "full"
    kernels: str = "eager"
    max_grad_norm: float = 1.0
    keep_outputs: bool = False
    use_cache: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    steps: int = 3
    eval: str = "none"
    eval_batches: int = 10
    eval_micro_batch_size: int = 8
    eval_accumulation_steps: int = 0
    save: bool = False
    strategy: str = "single"
    dp_size: int = 1
    tp_size: int = 1
    pp_size: int = 1
    cp_size: int = 1
    ep_size: int = 1
    offload: str = "none"
    gpu: str | None = None

    def __post_init__(self) -> None:
        """Check every value, put it in its plain form, then check what does not go together."""
        for name in KEYS:
            object.__setattr__(self, name, checked_value(name, getattr(self, name)))
        settle(self, DEFAULTS)

    @classmethod
    def resolve(
        cls, values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> tuple[Workload, tuple[str, ...]]:
        """The workload of some keys, and the keys with an effect that were left at a default.

        Raises:
            ConfigError: A key is unknown or a value cannot be used.

        Example:
            >>> workload, assumed = Workload.resolve(model="7b", method="lora", rank=16)
            >>> workload.rank, "rank" in assumed, "seq_len" in assumed
            (16, False, True)
        """
        given = {**(values or {}), **more}
        for key in given:
            if key not in KEYS:
                raise unknown_name("workload key", key, KEYS)
        if given.get("model") is None:
            raise ConfigError("model: not given; name a preset such as 7b, or a config.json.")
        workload = cls(**{**_default_rank(given), **given})
        left = tuple(k for k in KEYS if k not in given and k not in _without_effect(workload))
        return workload, left

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, fit for JSON and for `resolve`."""
        return {name: _plain(getattr(self, name)) for name in KEYS}

    @property
    def num_tokens(self) -> int:
        """Tokens per forward. [tokens]"""
        return self.micro_batch_size * self.seq_len

    @property
    def is_quantized(self) -> bool:
        """Whether the base model's linear layers are quantised."""
        return self.quantization != "none"

    @property
    def prepares_kbit(self) -> bool:
        """Whether ``prepare_model_for_kbit_training`` really runs."""
        return self.is_quantized and self.prepare_kbit and self.method != "frozen"


PEFT_TARGETS = ("q_proj", "v_proj")
"""LoRA's targets where none are given: of llama, mistral, qwen2 and qwen3 alike.

Source: huggingface/peft v0.21.2 ``utils/constants.py``
``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING``.
"""
KEYS = tuple(f.name for f in fields(Workload))
DEFAULTS: dict[str, Any] = {
    f.name: {} if f.name in ("peft_config", "optim_args", "versions") else f.default
    for f in fields(Workload)
    if f.name != "model"
}


def load_workload(path: str | PathLike[str]) -> dict[str, Any]:
    """The keys that a JSON, YAML or TOML file gives, unknown ones refused; see `Workload.resolve`.

    Raises:
        ConfigError: The file cannot be read, or holds a key that a workload has not.
    """
    file = Path(fspath(path)).expanduser()
    values = read_mapping(file)
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{file}: {unknown_name('workload key', key, KEYS)}")
    return values


def rank_warnings(workload: Workload, shapes: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """A warning if the rank is above what the adapted matrices can use; PEFT allows it.

    Args:
        workload: The workload.
        shapes: (out_features, in_features) of each kind of linear layer.
    """
    if workload.method not in LORA_METHODS:
        return ()
    low = [n for n in shapes if workload.rank > min(shapes[n]) and _adapts(workload, n)]
    if not low:
        return ()
    return (
        f"rank {workload.rank} is above the rank of the matrices of {', '.join(low)}: more memory, "
        "no more capacity.",
    )


def _adapts(workload: Workload, name: str) -> bool:
    """Whether LoRA adapts the layers whose name ends so."""
    targets = workload.target_modules or PEFT_TARGETS
    if targets == "all-linear":
        return name != "lm_head"
    if isinstance(targets, str):
        parts = ("model.layers.0.self_attn.", "model.layers.0.mlp.", "")
        return any(re.fullmatch(targets, part + name) for part in parts)
    return any(target.rpartition(".")[2] == name for target in targets)


def _without_effect(workload: Workload) -> set[str]:
    """Keys that change nothing in this workload, so that a default there is no assumption."""
    idle = {key for key, methods in METHOD_KEYS.items() if workload.method not in methods}
    idle |= {*MESH_KEYS, "offload", "optim_args", "peft_config", "trainable", "versions"}
    if not workload.is_quantized:
        idle.add("prepare_kbit")
    if workload.method == "frozen":
        idle |= {"optimizer", "max_grad_norm"}
    idle |= {key for key in EVAL_KEYS if workload.eval == "none"} | {"eval", "save"}
    return idle


def _default_rank(given: Mapping[str, Any]) -> dict[str, int]:
    """PEFT's rank of the method, if none is given."""
    method = given.get("method")
    if "rank" in given or not isinstance(method, str):
        return {}
    name = method.strip().lower().replace("-", "_")
    return {"rank": BY_NAME[name].rank} if name in BY_NAME and BY_NAME[name].rank else {}


def _plain(value: Any) -> Any:
    """``value`` with tuples as lists and mappings as dicts, so that JSON gives it back equal."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
