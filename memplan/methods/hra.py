"""HRA as PEFT runs it: the weight times a chain of Householder reflections, each a whole matrix.

Source: huggingface/peft v0.21.2 tuners/hra/layer.py ``HRALinear``.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops import matmul as matmul_ops
from memplan.engine.ops.arithmetic import div, sub
from memplan.engine.ops.contraction import column
from memplan.engine.ops.linalg import matmul
from memplan.engine.ops.norm import norms
from memplan.engine.ops.pointwise import scale, to
from memplan.engine.ops.views import transpose
from memplan.engine.tensor import empty
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload


class HraLinear(TunerLayer):
    """``HRALinear``: the base layer's own product is never made."""

    def __init__(self, base_layer: Linear, rank: int) -> None:
        super().__init__(base_layer)
        self.hra_u = self.entry(self.in_features, rank)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        new_weight = empty((self.in_features, self.in_features), FP32)
        delta_weight = self.delta_weight()
        new_weight = product(to(new_weight, delta_weight.dtype), delta_weight)
        orig_weight = self.base_layer.weight
        orig_weight = to(orig_weight, new_weight.dtype)
        new_weight = product(orig_weight, new_weight)
        bias = self.base_layer.bias
        bias = None if bias is None else to(bias, new_weight.dtype)
        x = to(x, new_weight.dtype)
        result = matmul_ops.linear(x, new_weight, bias)
        result = to(result, previous_dtype)
        return result

    def delta_weight(self) -> Tensor:
        """``get_delta_weight``: one reflection after the other."""
        opt_u = self.hra_u.default
        opt_u = div(opt_u, norms(opt_u, 0))
        weight = empty((self.in_features, self.in_features), self.hra_u.default.dtype)
        for _ in range(self.rank):
            ui = column(opt_u)
            weight = sub(weight, product(product(scale(weight), ui), transpose(ui, 0, 1)))
        return weight


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` as Python writes it: both operands live until it is there."""
    out = matmul(a, b)
    return out


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method hra over quantised layers is not modelled.")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return HraLinear(base_layer, workload.rank)

    tune(model, workload, make)
    return model
