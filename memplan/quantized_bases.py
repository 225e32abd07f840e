"""What goes together with a quantised base: what the libraries refuse, and what is not modelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memplan.errors import ConfigError
from memplan.vocabulary import HQQ, OLD_VERSIONS, TORCHAO

if TYPE_CHECKING:
    from memplan.workload import Workload

METHODS = ("lora", "rslora", "prompt_tuning", "frozen")
"""What is modelled over torchao's and hqq's layers."""


def check_quantization(workload: Workload) -> None:
    """Refuse what the libraries refuse.

    Raises:
        ConfigError: It says which library, and what to do.

    Source:
        huggingface/peft v0.21.2 tuners/lora/torchao.py ``_check_dtype_supported``; tuners_utils.py
        ``_maybe_include_all_linear_layers``, which finds no layer of hqq's.
    """
    scheme = workload.quantization
    if scheme.startswith("int4-torchao") and workload.method in ("lora", "rslora", "dora"):
        raise ConfigError(
            f"quantization {scheme}: PEFT's LoRA over torchao takes int8 weights only; use "
            "int8-torchao, or nf4 for 4 bits."
        )
    if scheme in HQQ and workload.target_modules == "all-linear":
        raise ConfigError(
            "target_modules: all-linear finds none of hqq's layers in PEFT; name them, as in "
            "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj."
        )
    if scheme in HQQ and workload.autocast not in ("none", workload.dtype):
        raise ConfigError(
            f"quantization {scheme}: hqq's backward multiplies in {workload.dtype} what autocast "
            f"left in {workload.autocast}, which torch refuses; set autocast: none."
        )


def reasons_of_quantization(workload: Workload) -> Iterator[str]:
    """What the byte engine does not model of a quantised base."""
    scheme = workload.quantization
    yield from reasons_of_old_versions(workload)
    if scheme not in (*TORCHAO, *HQQ):
        return
    if workload.method not in METHODS:
        listed = ", ".join(METHODS)
        yield f"quantization: {scheme} under {workload.method} is not modelled; under {listed}."
    if workload.modules_to_save:
        yield f"quantization: {scheme} with modules_to_save is not modelled."
    if scheme in HQQ and workload.bias == "lora_only":
        yield f"quantization: {scheme} with bias lora_only is not modelled: no parameters there."


def is_old_bitsandbytes(workload: Workload) -> bool:
    """Whether a release is asked for whose 4-bit layers keep what they are given."""
    return workload.versions.get("bitsandbytes") in OLD_VERSIONS["bitsandbytes"]


def reasons_of_old_versions(workload: Workload) -> Iterator[str]:
    """What is not modelled of an old bitsandbytes: all but its 4-bit layers."""
    if not is_old_bitsandbytes(workload):
        return
    version = workload.versions["bitsandbytes"]
    if workload.quantization == "int8":
        yield f"versions: int8 of bitsandbytes {version} is not modelled; its 4-bit layers are."
    if workload.quantization != "none" and workload.method not in METHODS:
        listed = ", ".join(METHODS)
        yield f"versions: {workload.method} on bitsandbytes {version} is not modelled: {listed}."
