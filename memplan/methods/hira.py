"""HiRA as PEFT runs it: the update is the frozen weight times a low-rank matrix, by element.

Source: huggingface/peft v0.21.2 tuners/hira/layer.py ``Linear``; tuners/hira/bnb.py.
"""

from __future__ import annotations

from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.linalg import linear, matmul
from memplan.engine.ops.pointwise import add, dropout, mul, to
from memplan.engine.ops.views import clone, transpose
from memplan.methods.tuner import TunerLayer, bits_of, tune
from memplan.workload import Workload


class HiraLinear(TunerLayer):
    """``peft.tuners.hira.layer.Linear``."""

    def __init__(self, base_layer: Linear, rank: int, p: float) -> None:
        super().__init__(base_layer)
        self.hira_A = self.entry(rank, self.in_features)
        self.hira_B = self.entry(self.out_features, rank)
        self.dropout = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        hira_A, hira_B = self.hira_A.default, self.hira_B.default
        prod_AB = matmul(transpose(hira_A, 0, 1), transpose(hira_B, 0, 1))
        x = to(x, hira_A.dtype)
        dropout_sub = dropout(x, self.dropout)
        weight = mul(self.base_layer.weight, transpose(prod_AB, 0, 1))
        hira_result = linear(dropout_sub, weight)
        del weight
        result = add(result, hira_result)
        result = to(result, torch_result_dtype)
        return result


class HiraLinearBnb(HiraLinear):
    """``Linear8bitLt`` and ``Linear4bit`` of ``tuners/hira/bnb.py``: a dequantised weight."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result, dequant_w = self.base_result(x)
        requires_conversion = S.autocast is None
        if requires_conversion:
            expected_dtype = result.dtype
            x = to(x, self.hira_A.default.dtype)
        dropout_sub = dropout(x, self.dropout)
        prod_AB = matmul(self.hira_B.default, self.hira_A.default)
        eff_w = mul(dequant_w, prod_AB)
        hira_out = linear(dropout_sub, eff_w)
        if requires_conversion:
            hira_out = to(hira_out, expected_dtype)
        result = add(result, hira_out)
        if requires_conversion:
            result = to(result, expected_dtype)
        return result

    def base_result(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The base's result and its weight; of 8 bits the weight is made first."""
        if bits_of(self.base_layer) == 8:
            dequant_w = self.base_layer.dequantized()
            return self.base_layer(x), dequant_w
        result = clone(self.base_layer(x))
        return result, self.base_layer.dequantized()


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""
    p = workload.peft_config.get("hira_dropout", 0.0)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        kind = HiraLinearBnb if bits_of(base_layer) else HiraLinear
        return kind(base_layer, rank, p)

    tune(model, workload, make)
    return model
