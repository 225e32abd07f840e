"""Keys of PEFT's ``LoraConfig``, with what is modelled, and what of them goes together.

Source: huggingface/peft v0.21.2 tuners/lora/config.py ``LoraConfig``, tuners/lora/layer.py
``reset_lora_parameters`` (in place for the initialisations that are modelled).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memplan.errors import ConfigError
from memplan.option_values import Checked, Whole

if TYPE_CHECKING:
    from memplan.workload import Workload

LORA_METHODS = ("lora", "rslora", "dora", "lora_fa")
"""Methods that PEFT runs as LoRA; AdaLoRA has layers of its own."""

LORA_OPTIONS: dict[str, tuple[object, ...]] = {
    "use_rslora": (False, True),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "pissa", "olora"),
    "fan_in_fan_out": (False, True),  # PEFT sets it to False for a linear layer
    "lora_bias": (False, True),
    "use_dora": (False, True),
    "inference_mode": (False,),
    "trainable_token_indices": (None, Checked("tokens by their numbers")),
    "ensure_weight_tying": (False, True),
    "qalora_group_size": (Whole(1),),  # it goes with use_qalora
    "use_qalora": (False, True),  # it pools the inputs of GPTQ's layers only
    "runtime_config": (Checked("ephemeral_gpu_offload, which moves what is not on the device"),),
    "layer_replication": (None,),
    "target_parameters": (None,),
    "megatron_config": (None,),
    "megatron_core": ("megatron.core",),
    "loftq_config": (None, Checked("ignored without the initialisation loftq")),
    "eva_config": (None,),
    "corda_config": (None,),
    "lora_ga_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "kasa_config": (None,),
    "arrow_config": (None,),
    "use_bdlora": (None,),
    "alora_invocation_tokens": (None,),
}


def check_lora(workload: Workload) -> None:
    """What of a LoRA configuration does not go together.

    Raises:
        ConfigError: PEFT refuses it, or fails with it.

    Source:
        ``LoraConfig.__post_init__``; tuners/lora/layer.py; optimizers/lorafa.py, which takes the
        adapter's parameters two by two.
    """
    method, peft_config = workload.method, workload.peft_config
    has_bias = bool(peft_config.get("lora_bias"))
    has_dora = bool(peft_config.get("use_dora", method == "dora"))
    if has_bias and has_dora:
        raise ConfigError("peft_config: lora_bias: PEFT does not support it for DoRA; drop one.")
    if has_bias and not isinstance(peft_config.get("init_lora_weights", True), bool):
        raise ConfigError("peft_config: lora_bias goes with init_lora_weights True or False only.")
    if method == "lora_fa" and (has_bias or has_dora):
        what = "lora_bias" if has_bias else "use_dora"
        raise ConfigError(
            f"peft_config: {what}: LoRA-FA's optimizer takes the parameters of an adapter two by "
            "two, A and B; use the method lora."
        )
    if "runtime_config" in peft_config:
        check_runtime(peft_config["runtime_config"])
    if workload.adapters > 1:
        check_adapters(workload)


def check_runtime(given: object) -> None:
    """``LoraRuntimeConfig``, whose one option finds everything on the device already.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(given, Mapping) or set(given) - {"ephemeral_gpu_offload"}:
        raise ConfigError(
            'peft_config: runtime_config: expected {"ephemeral_gpu_offload": true or false}, '
            f"got {given!r}."
        )


def check_adapters(workload: Workload) -> None:
    """What does not go with several adapters.

    Raises:
        ConfigError: PEFT refuses it, or fails with it.
    """
    if workload.bias != "none":
        raise ConfigError(
            f"adapters: {workload.adapters} do not go with bias {workload.bias}: PEFT supports "
            "only one adapter with bias."
        )
    if workload.method == "lora_fa":
        raise ConfigError(
            f"adapters: {workload.adapters}: LoRA-FA's optimizer takes the parameters of all "
            "adapters two by two, and pairs those of different ones; load one."
        )
