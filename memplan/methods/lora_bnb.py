"""LoRA over bitsandbytes' layers, as PEFT runs it.

Source: huggingface/peft v0.21.2 peft/tuners/lora/bnb.py.
"""

from __future__ import annotations

from memplan.engine import S, Tensor
from memplan.engine.ops.pointwise import add, dropout, scale, to
from memplan.engine.ops.views import clone
from memplan.methods.lora import LoraLinear


class LoraLinear8bitLt(LoraLinear):
    """``peft.tuners.lora.bnb.Linear8bitLt``: conversions only outside autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        return self.adapted(x, result)

    def adapted(self, x: Tensor, result: Tensor) -> Tensor:
        """The base's result and the adapter's."""
        requires_conversion = S.autocast is None
        if requires_conversion:
            expected_dtype = result.dtype
            x = to(x, self.lora_A.weight.dtype)
        if self.lora_magnitude_vector is not None:
            result = self.with_magnitude(x, result, self.lora_magnitude_vector)
            return to(result, expected_dtype) if requires_conversion else result
        output = scale(self.lora_B(self.lora_A(dropout(x, self.dropout))))
        if requires_conversion:
            output = to(output, expected_dtype)
        result = add(result, output)
        return result


class LoraLinear4bit(LoraLinear8bitLt):
    """``peft.tuners.lora.bnb.Linear4bit``: the base's result is cloned, too."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        result = clone(result)
        return self.adapted(x, result)
