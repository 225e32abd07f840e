"""Any language model that transformers has, loaded as ``from_pretrained`` loads it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memplan.evidence.runner.checkpoint import write_sparse_checkpoint
from memplan.evidence.runner.liger import apply_liger
from memplan.evidence.runner.quantize import (
    is_quantized_later,
    quantization_config,
    quantize_loaded,
)

Json = dict[str, Any]


def load_model(w: Json, model_config: Mapping[str, Any]) -> Any:
    """The model as ``from_pretrained`` leaves it on the device.

    Args:
        w: The workload.
        model_config: Keys of the model's ``config.json``.
    """
    import torch

    config = build_config(model_config)
    dtype = getattr(torch, w["dtype"])
    config.dtype = dtype
    kind = auto_class(config)
    with torch.device("meta"):
        shapes = kind.from_config(config, dtype=dtype)
    extra = attention(w, shapes) | quantization_config(w["quantization"], dtype)
    with tempfile.TemporaryDirectory() as folder:
        write_sparse_checkpoint(shapes, Path(folder))
        del shapes
        model = kind.from_pretrained(folder, dtype=dtype, device_map=device_map(w), **extra)
    quantize_loaded(w["quantization"], model, dtype)
    model.config.use_cache = w["use_cache"]
    apply_liger(w, model)
    return model


def device_map(w: Json) -> Json:
    """All of a model on this process's device; on the host, if it is quantised from there."""
    import torch

    if is_quantized_later(w["quantization"]):
        return {"": "cpu"}
    return {"": torch.cuda.current_device()}


def build_config(keys: Mapping[str, Any]) -> Any:
    """The configuration that transformers makes of these keys."""
    from transformers import AutoConfig

    rest = dict(keys)
    config = AutoConfig.for_model(rest.pop("model_type"), **rest)
    if is_encoder_decoder(config) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id  # as the checkpoints of T5 have it
    return config


def auto_class(config: Any) -> Any:
    """What builds this model with a language modelling head."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if is_encoder_decoder(config) else AutoModelForCausalLM


def is_encoder_decoder(config: Any) -> bool:
    """Whether the labels go to a decoder of their own."""
    return bool(getattr(config, "is_encoder_decoder", False))


def attention(w: Json, model: Any) -> Json:
    """Keyword arguments for the attention; of a model without SDPA, transformers' own choice."""
    name: str = w["attention"]
    if not name.startswith("sdpa"):
        return {"attn_implementation": name}
    return {"attn_implementation": "sdpa"} if getattr(model, "_supports_sdpa", True) else {}
