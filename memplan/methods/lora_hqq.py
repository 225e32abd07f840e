"""LoRA over hqq's layers, as PEFT runs it.

Source: huggingface/peft v0.21.2 peft/tuners/lora/hqq.py.
"""

from __future__ import annotations

from memplan.engine import S, Tensor
from memplan.engine.ops.pointwise import add, dropout, scale, to
from memplan.methods.lora import LoraLinear


class HqqLoraLinear(LoraLinear):
    """``peft.tuners.lora.hqq.HqqLoraLinear``: conversions only outside autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        requires_conversion = S.autocast is None
        if requires_conversion:
            expected_dtype = result.dtype
            x = to(x, self.lora_A.weight.dtype)
        result = add(result, scale(self.lora_B(self.lora_A(dropout(x, self.dropout)))))
        if requires_conversion:
            result = to(result, expected_dtype)
        return result
