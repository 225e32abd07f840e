"""What of a workload does not go together: checked once, when the record is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan import method_table
from memplan.errors import ConfigError, unknown_name
from memplan.method_table import BY_NAME
from memplan.peft_options import PEFT_CONFIG, PEFT_SELECTORS, PEFT_WORDS
from memplan.selectors import check_selectors
from memplan.values import MAX_TOKENS, NO_SUCH_RUN, checked_value

if TYPE_CHECKING:
    from memplan.workload import Workload

MAX_TAKERS = 3
LORA_FAMILY = ("lora", "dora", "rslora", "lora_fa", "adalora")
# Keys that only these methods take; what else a method has, PEFT's own words in `peft_config` say.
METHOD_KEYS = {key: method_table.takers(key) for key in (*method_table.LORA, "num_virtual_tokens")}


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
    if workload.method not in LORA_FAMILY or "bias" not in workload.peft_config:
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
                f"{key}: the method {workload.method} takes none; it belongs to {takers(key)}."
            )
    if workload.method in PEFT_CONFIG:
        _check_peft_config(workload)


def takers(key: str) -> str:
    """The methods that take a key, in words."""
    modelled = [m for m in METHOD_KEYS[key] if BY_NAME[m].modelled]
    others = [m for m in METHOD_KEYS[key] if not BY_NAME[m].modelled]
    if len(others) > MAX_TAKERS:
        others = [*others[:2], f"{len(others) - 2} more"]
    return " and ".join([*modelled, *others])


def _check_peft_config(workload: Workload) -> None:
    """The further PEFT keys of a method that is modelled."""
    allowed = PEFT_CONFIG[workload.method]
    selects = workload.method == "lora"
    for key in workload.peft_config:
        if not (selects and key in PEFT_SELECTORS):
            _check_peft_key(key, allowed)
    if selects:
        check_selectors(workload.peft_config, workload.target_modules)


def _check_peft_key(key: str, allowed: Mapping[str, tuple[object, ...]]) -> None:
    if key in PEFT_WORDS:
        raise ConfigError(f"peft_config: {key}: give it as the workload key {PEFT_WORDS[key]}.")
    if key not in allowed:
        raise unknown_name("peft_config key", key, allowed)


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
