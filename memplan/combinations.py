"""What of a workload does not go together: checked once, when the record is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan import method_table
from memplan.errors import ConfigError, unknown_name
from memplan.lora_options import LORA_METHODS, check_lora
from memplan.method_table import ADDITIVE, BY_NAME
from memplan.peft_options import PEFT_CONFIG, PEFT_SELECTORS, PEFT_WORDS
from memplan.quantized_bases import check_quantization
from memplan.selectors import check_selectors
from memplan.tuner_options import TUNER_SELECTORS
from memplan.values import MAX_TOKENS, NO_SUCH_RUN, checked_value
from memplan.vocabulary import OPTIM_ARGS

if TYPE_CHECKING:
    from memplan.workload import Workload

MAX_TAKERS = 3
LORA_FAMILY = ("lora", "dora", "rslora", "lora_fa", "adalora")
# Keys that only these methods take; what else a method has, PEFT's own words in `peft_config` say.
METHOD_KEYS = {
    key: method_table.takers(key)
    for key in (*method_table.LORA, "num_virtual_tokens", *method_table.CHOSEN)
}


def settle(workload: Workload, defaults: Mapping[str, Any]) -> None:
    """Settle what depends on two keys, and refuse what no run can have."""
    _take_bias_from_peft_config(workload)
    _check_method_keys(workload, defaults)
    _check_tokens(workload)
    _check_trains(workload, defaults)
    _check_loop(workload)
    _check_attention(workload)
    check_quantization(workload)
    _check_optim_args(workload)
    _check_devices(workload)


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
    names = METHOD_KEYS[key]
    if len(names) > MAX_TAKERS + 1:
        names = (*names[:MAX_TAKERS], f"{len(names) - MAX_TAKERS} more")
    return " and ".join(names)


def _check_peft_config(workload: Workload) -> None:
    """The further PEFT keys of a method that is modelled."""
    allowed = PEFT_CONFIG[workload.method]
    is_lora = workload.method in LORA_METHODS
    selectors = PEFT_SELECTORS if is_lora else TUNER_SELECTORS.get(workload.method, ())
    for key in workload.peft_config:
        if key not in selectors:
            _check_peft_key(key, allowed)
    if selectors:
        check_selectors(workload.peft_config, workload.target_modules)
    if is_lora:
        check_lora(workload)


def _check_peft_key(key: str, allowed: Mapping[str, tuple[object, ...]]) -> None:
    if key in PEFT_WORDS:
        raise ConfigError(f"peft_config: {key}: give it as the workload key {PEFT_WORDS[key]}.")
    if key not in allowed:
        raise unknown_name("peft_config key", key, allowed)


def _check_tokens(workload: Workload) -> None:
    if workload.eval != "none" and workload.eval_micro_batch_size * workload.seq_len > MAX_TOKENS:
        raise ConfigError(
            f"eval_micro_batch_size {workload.eval_micro_batch_size:,} x seq_len "
            f"{workload.seq_len:,} is above {MAX_TOKENS:,} tokens per forward; {NO_SUCH_RUN}."
        )
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
    trains_all = workload.method == "full" and not workload.trainable
    if trains_all and workload.prepares_kbit and workload.optimizer != "none":
        raise ConfigError(
            f"method full does not go with quantization {workload.quantization}: "
            "prepare_model_for_kbit_training freezes every parameter, and torch.optim refuses an "
            "empty list. Use lora or prompt_tuning, or prepare_kbit: false, which trains what "
            "is not quantised."
        )


def _check_optim_args(workload: Workload) -> None:
    """The optimizer's arguments; the other way round, an argument lists the optimizers."""
    for key in workload.optim_args:
        if key not in OPTIM_ARGS:
            raise unknown_name("optim_args key", key, OPTIM_ARGS)
        if workload.optimizer not in OPTIM_ARGS[key]:
            raise ConfigError(
                f"optim_args: {key}: {workload.optimizer} takes none; it belongs to "
                f"{', '.join(OPTIM_ARGS[key])}."
            )


def _check_loop(workload: Workload) -> None:
    """What transformers' Trainer does not do.

    Source: huggingface/transformers v5.18.0 trainer.py ``create_optimizer``, ``compute_loss``;
    trainer_utils.py ``validate_quantization_for_training``.
    """
    if workload.loop is None:
        _set(workload, "loop", "plain" if _is_not_for_the_trainer(workload) else "trainer")
    if workload.loop != "trainer":
        if workload.eval != "none" or workload.save:
            raise ConfigError("eval, save: what transformers' Trainer does; set loop: trainer.")
        return
    if workload.optimizer == "none":
        raise ConfigError(
            "loop: transformers' Trainer always has an optimizer, and something to train; "
            "set loop: plain, or another method and optimizer."
        )
    if workload.keep_outputs:
        raise ConfigError("keep_outputs: transformers' Trainer keeps none; set loop: plain.")
    if workload.is_quantized and not BY_NAME[workload.method].of_peft:
        raise ConfigError(
            f"method {workload.method} does not go with quantization {workload.quantization} and "
            "loop trainer: transformers' Trainer refuses a quantised model without adapters. Use "
            "loop: plain, or a method of PEFT."
        )


def _is_not_for_the_trainer(workload: Workload) -> bool:
    """Whether the Trainer would refuse it, or memplan runs it in its own loop only."""
    method = BY_NAME[workload.method]
    return (
        workload.optimizer == "none"
        or workload.keep_outputs
        or (workload.is_quantized and not method.of_peft)
        or (method.family == ADDITIVE and not method.of_peft)
        or workload.strategy != "single"
        or workload.library != "transformers"
    )


def _check_attention(workload: Workload) -> None:
    """Flash attention takes no mask and no float32 (torch: "No available kernel")."""
    if workload.attention != "sdpa-flash":
        return
    if workload.attention_mask == "padding":
        raise ConfigError("attention sdpa-flash takes no mask; use sdpa-efficient or sdpa-math.")
    if workload.dtype == "float32" and workload.autocast == "none":
        raise ConfigError("attention sdpa-flash has no float32 kernel; set autocast or dtype.")


def _check_devices(workload: Workload) -> None:
    """Several devices and a strategy for them come together."""
    strategy, size = workload.strategy, workload.dp_size
    if size > 1 and strategy == "single":
        raise ConfigError(f"dp_size: {size} devices take a strategy; add strategy ddp or fsdp2.")
    if size == 1 and strategy != "single":
        raise ConfigError(f"strategy: {strategy}: say over how many devices; add dp_size, above 1.")
