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

    if scheme == "none":
        return {}
    if scheme[:3] in ("nf4", "fp4"):
        return {"quantization_config": bnb_4bit_config(scheme, dtype)}
    if scheme == "int8":
        return {"quantization_config": transformers.BitsAndBytesConfig(load_in_8bit=True)}
    if scheme == "hqq-4bit":
        return {"quantization_config": transformers.HqqConfig(nbits=4)}
    raise NotImplementedError(f"{scheme}: needs a checkpoint quantised already, or Triton")


def bnb_4bit_config(scheme: str, dtype: Any) -> Any:
    """The four-bit schemes of bitsandbytes: ``nf4``, ``nf4-dq``, ``fp4``, ``fp4-dq``."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme[:3],
        bnb_4bit_use_double_quant=scheme.endswith("dq"),
        bnb_4bit_compute_dtype=dtype,
    )
