"""The workload's keys that a model in memory tells of: config, adapter and quantisation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

from memplan.peft_options import PEFT_WORDS


def model_keys(model: Any) -> dict[str, Any]:
    """What a model says of itself; a workload's ``model`` key stands for itself."""
    if model is None or isinstance(model, (str, PathLike, Mapping)):
        return {} if model is None else {"model": model}
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return {}
    values = json.loads(json.dumps(config.to_dict(), default=str))  # as config.json has it
    quantization = quantization_of(values.pop("quantization_config", None) or {})
    dtype = str(getattr(config, "dtype", None) or "").removeprefix("torch.")
    keys = {"model": values, "quantization": quantization, **adapter_keys(model)}
    return {**keys, "dtype": dtype} if dtype else keys


def quantization_of(config: Mapping[str, Any]) -> str:
    """The workload's word for a ``quantization_config``.

    >>> quantization_of({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
    ...     "bnb_4bit_use_double_quant": True})
    'nf4-dq'
    """
    if not config:
        return "none"
    if config.get("load_in_8bit"):
        return "int8"
    if config.get("load_in_4bit"):
        double = "-dq" if config.get("bnb_4bit_use_double_quant") else ""
        return f"{config.get('bnb_4bit_quant_type', 'fp4')}{double}"
    return str(config.get("quant_method", "unknown"))


def adapter_keys(model: Any) -> dict[str, Any]:
    """The method of a model that PEFT has wrapped, and the method's sizes."""
    adapters = getattr(model, "peft_config", None)
    if not isinstance(adapters, Mapping) or not adapters:
        return {}
    config = next(iter(adapters.values())).to_dict()
    kind = config.get("peft_type")
    keys: dict[str, Any] = {"method": str(getattr(kind, "value", kind)).lower()}
    for word, key in PEFT_WORDS.items():
        value = config.get(word)
        if value is not None:
            keys[key] = sorted(value) if isinstance(value, (set, frozenset)) else value
    return keys
