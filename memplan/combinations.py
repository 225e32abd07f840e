"""What of a workload does not go together: checked once, when the record is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan.errors import ConfigError, UnsupportedError, unknown_name
from memplan.selectors import check_selectors
from memplan.values import MAX_TOKENS, NO_SUCH_RUN, checked_value
from memplan.vocabulary import PEFT_CONFIG, PEFT_SELECTORS, PEFT_WORDS

if TYPE_CHECKING:
    from memplan.workload import Workload

# Keys that only these methods take.
METHOD_KEYS = {
    "rank": ("lora",),
    "alpha": ("lora",),
    "dropout": ("lora",),
    "target_modules": ("lora",),
    "bias": ("lora",),
    "adapter_dtype": ("lora",),
    "modules_to_save": ("lora",),
    "num_virtual_tokens": ("prompt_tuning",),
    "peft_config": ("lora", "prompt_tuning"),
}


def settle(workload: Workload, defaults: Mapping[str, Any]) -> None:
    """Settle what depends on two keys, and refuse what no run can have."""
    _take_bias_from_peft_config(workload)
    _check_method_keys(workload, defaults)
    _check_tokens(workload)
    _check_trains(workload, defaults)
    _check_attention(workload)


def _set(workload: Workload, name: str, value: Any) -> None:
    object.__setattr__(workload, name, value)


def _take_bias_from_peft_config(workload: Workload) -> None:
    """PEFT's ``bias`` may stand among its other keys; it becomes the workload's own."""
    if workload.method != "lora" or "bias" not in workload.peft_config:
        return
    rest = dict(workload.peft_config)
    bias = checked_value("bias", rest.pop("bias"))
    if workload.bias not in ("none", bias):
        raise ConfigError(f"bias: {workload.bias!r}, but peft_config says {bias!r}.")
    _set(workload, "bias", bias)
    _set(workload, "peft_config", rest)


def _check_method_keys(workload: Workload, defaults: Mapping[str, Any]) -> None:
    for key, methods in METHOD_KEYS.items():
        if workload.method not in methods and getattr(workload, key) != defaults[key]:
            raise ConfigError(
                f"{key}: the method {workload.method} takes none; it belongs to "
                f"{' and '.join(methods)}."
            )
    allowed = PEFT_CONFIG.get(workload.method, {})
    selects = workload.method == "lora"
    for key, value in workload.peft_config.items():
        if not (selects and key in PEFT_SELECTORS):
            _check_peft_key(key, value, allowed)
    if selects:
        check_selectors(workload.peft_config, workload.target_modules)


def _check_peft_key(key: str, value: Any, allowed: Mapping[str, tuple[object, ...]]) -> None:
    if key in PEFT_WORDS:
        raise ConfigError(f"peft_config: {key}: give it as the workload key {PEFT_WORDS[key]}.")
    if key not in allowed:
        raise unknown_name("peft_config key", key, allowed)
    if not any(value is v or (isinstance(v, str) and value == v) for v in allowed[key]):
        modelled = ", ".join(repr(v) for v in allowed[key])
        raise UnsupportedError(f"peft_config: {key}: {value!r} is not modelled; {modelled} is.")


def _check_tokens(workload: Workload) -> None:
    if workload.num_tokens > MAX_TOKENS:
        raise ConfigError(
            f"micro_batch_size {workload.micro_batch_size:,} x seq_len {workload.seq_len:,} is "
            f"above {MAX_TOKENS:,} tokens per forward; {NO_SUCH_RUN}."
        )


def _check_trains(workload: Workload, defaults: Mapping[str, Any]) -> None:
    """``torch.optim`` refuses a list without parameters, so a run that trains nothing has none."""
    if workload.method == "frozen":
        if workload.optimizer not in ("none", defaults["optimizer"]):
            raise ConfigError("optimizer: the method frozen trains nothing; only none goes here.")
        _set(workload, "optimizer", "none")
    if workload.method == "full" and workload.prepares_kbit and workload.optimizer != "none":
        raise ConfigError(
            f"method full does not go with quantization {workload.quantization}: "
            "prepare_model_for_kbit_training freezes every parameter, and torch.optim refuses an "
            "empty list. Use lora or prompt_tuning, or prepare_kbit: false, which trains what "
            "is not quantised."
        )


def _check_attention(workload: Workload) -> None:
    """Flash attention takes no mask and no float32 (torch: "No available kernel")."""
    if workload.attention != "sdpa-flash":
        return
    if workload.attention_mask == "padding":
        raise ConfigError("attention sdpa-flash takes no mask; use sdpa-efficient or sdpa-math.")
    if workload.dtype == "float32" and workload.autocast == "none":
        raise ConfigError("attention sdpa-flash has no float32 kernel; set autocast or dtype.")
