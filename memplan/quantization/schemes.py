"""Which linear layers a scheme replaces, and by what."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Linear, Module
from memplan.quantization.base import QuantizedLinear

Replace = Callable[[Linear], QuantizedLinear]


def replacement(quantization: str) -> Replace:
    """What stands in for a linear layer; the 4-bit data types differ in values only."""
    if quantization == "int8":
        from memplan.quantization.bnb_int8 import Linear8bitLt

        return Linear8bitLt
    from memplan.quantization.bnb_4bit import CodeCache, Linear4bit

    codes = CodeCache() if quantization.endswith("-dq") else None
    return lambda plain: Linear4bit(plain, codes)


def replace_linears(model: Module, quantization: str) -> None:
    """``replace_with_bnb_linear``: every linear layer but the output head.

    Source: huggingface/transformers v5.18.0 integrations/bitsandbytes.py, quantizers/base.py
    ``get_modules_to_not_convert``.
    """
    replace = replacement(quantization)
    for owner in list(model.modules()):
        for name, child in list(vars(owner).items()):
            if isinstance(child, Linear) and name != "lm_head":
                setattr(owner, name, replace(child))
