"""Which linear layers a scheme replaces, and by what."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Linear, Module
from memplan.quantization.base import QuantizedLinear

Replace = Callable[[Linear], QuantizedLinear]


def replacement(quantization: str, bitsandbytes: str) -> Replace:
    """What stands in for a linear layer; the 4-bit data types differ in values only."""
    if quantization == "int8":
        from memplan.quantization.bnb_int8 import Linear8bitLt

        return Linear8bitLt
    name, _, size = quantization.partition("-g")
    if name in ("int8-torchao", "fp8"):
        from memplan.quantization.torchao import Float8Linear, Int8Linear

        kind = Float8Linear if name == "fp8" else Int8Linear
        return lambda plain: kind(plain, int(size) if size else None)
    if name == "hqq-4bit":
        from memplan.quantization.hqq import GROUP_SIZE, HQQLinear

        return lambda plain: HQQLinear(plain, int(size) if size else GROUP_SIZE)
    from memplan.quantization.bnb_4bit import CodeCache, Linear4bit

    codes = CodeCache() if quantization.endswith("-dq") else None
    if is_old(bitsandbytes):
        from memplan.quantization.bnb_4bit_old import HalfLinear4bit, OldLinear4bit

        old = HalfLinear4bit if bitsandbytes.startswith("0.42") else OldLinear4bit
        return lambda plain: old(plain, codes)
    return lambda plain: Linear4bit(plain, codes)


def is_old(bitsandbytes: str) -> bool:
    """Whether a version, or none, is one whose 4-bit layers keep what they are given."""
    return bitsandbytes.startswith(("0.42", "0.43"))


def replace_linears(model: Module, quantization: str, bitsandbytes: str = "") -> None:
    """``replace_with_bnb_linear``, and its likes: every linear layer but the output head.

    Source: huggingface/transformers v5.18.0 integrations/bitsandbytes.py, quantizers/base.py
    ``get_modules_to_not_convert``.
    """
    replace = replacement(quantization, bitsandbytes)
    for owner in list(model.modules()):
        for name, child in list(vars(owner).items()):
            if isinstance(child, Linear) and name != "lm_head":
                setattr(owner, name, replace(child))
