"""A workload's ``quantization`` as keyword arguments of ``from_pretrained``."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def quantization_config(scheme: str, dtype: Any) -> Json:
    """Keyword arguments for a scheme that quantises on loading, or none.

    Args:
        scheme: The workload's key.
        dtype: The dtype in which quantised layers compute.

    Raises:
        NotImplementedError: The scheme needs a checkpoint quantised before, or Triton.
    """
    import transformers

    if scheme == "none" or is_quantized_later(scheme):
        return {}
    if scheme[:3] in ("nf4", "fp4"):
        return {"quantization_config": bnb_4bit_config(scheme, dtype)}
    if scheme == "int8":
        return {"quantization_config": transformers.BitsAndBytesConfig(load_in_8bit=True)}
    if scheme.startswith(("int8-torchao", "fp8")):
        return {"quantization_config": torchao_config(scheme)}
    raise NotImplementedError(f"{scheme}: needs a checkpoint quantised already, or Triton")


def is_quantized_later(scheme: str) -> bool:
    """Whether the scheme's own library quantises a model that is loaded on the host.

    transformers v5.18.0 has no way to load with ``HqqConfig``: "not available yet".
    """
    return scheme.startswith("hqq")


def quantize_loaded(scheme: str, model: Any, dtype: Any) -> None:
    """``AutoHQQHFModel.quantize_model``, layer by layer from the host, as hqq's README does it."""
    if not is_quantized_later(scheme):
        return
    try:
        from hqq.core.quantize import BaseQuantizeConfig
        from hqq.models.hf.base import AutoHQQHFModel
    except ModuleNotFoundError:
        raise ImportError(f"{scheme} needs hqq, which is not installed") from None
    _, _, group = scheme.partition("-g")
    config = BaseQuantizeConfig(nbits=4, group_size=int(group or 64))
    AutoHQQHFModel.quantize_model(model, config, compute_dtype=dtype, device="cuda")


def torchao_config(scheme: str) -> Any:
    """Torchao's weight-only schemes: a scale a row, or a group of ``-g64`` and the like."""
    from transformers import TorchAoConfig

    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
        from torchao.quantization.granularity import PerGroup, PerRow
    except ModuleNotFoundError:
        raise ImportError(f"{scheme} needs torchao, which is not installed") from None
    kind = Float8WeightOnlyConfig if scheme.startswith("fp8") else Int8WeightOnlyConfig
    _, _, group = scheme.partition("-g")
    granularity = PerGroup(int(group)) if group else PerRow()
    return TorchAoConfig(kind(granularity=granularity))


def bnb_4bit_config(scheme: str, dtype: Any) -> Any:
    """The four-bit schemes of bitsandbytes: ``nf4``, ``nf4-dq``, ``fp4``, ``fp4-dq``."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme[:3],
        bnb_4bit_use_double_quant=scheme.endswith("dq"),
        bnb_4bit_compute_dtype=dtype,
    )
