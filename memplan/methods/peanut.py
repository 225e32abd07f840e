"""PEANuT as PEFT runs it: a small network makes the update out of the frozen weight.

Source: huggingface/peft v0.21.2 tuners/peanut/layer.py ``Linear``.
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.activations import relu, tanh
from memplan.engine.ops.linalg import matmul_rows, matmul_t
from memplan.engine.ops.pointwise import add, scale, silu, to
from memplan.engine.ops.views import transpose
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "tanh": tanh, "silu": silu}


class PeanutLinear(TunerLayer):
    """``peft.tuners.peanut.layer.Linear``: A takes as many inputs as the layer has outputs."""

    def __init__(self, base_layer: Linear, rank: int, depth: int, act_fn: str) -> None:
        super().__init__(base_layer)
        n, dtype = self.out_features, base_layer.compute_dtype
        self.peanut_A = Linear(n, rank, dtype)
        self.peanut_B = Linear(rank, n, dtype)
        self.peanut_encoders = [Linear(rank, rank, dtype) for _ in range(depth)]
        self.peanut_decoders = [Linear(rank, rank, dtype) for _ in range(depth)]
        self.non_linear = ACTIVATIONS[act_fn]

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        delta_weight = self.delta_weight()
        x_cast = to(x, delta_weight.dtype)
        delta = matmul_rows(x_cast, transpose(delta_weight, 0, 1))
        result = add(result, to(delta, torch_result_dtype))
        return result

    def delta_weight(self) -> Tensor:
        """``_compute_delta_weight``: (out_features, in_features), seen transposed."""
        base_weight_t = to(transpose(self.base_layer.weight, 0, 1), self.peanut_A.weight.dtype)
        delta_w = self.activated(matmul_t(base_weight_t, self.peanut_A.weight))
        residuals = []
        for encoder in self.peanut_encoders:
            residuals.append(delta_w)
            delta_w = self.activated(encoder(delta_w))
        for decoder, residual in zip(self.peanut_decoders, reversed(residuals), strict=True):
            delta_w = self.activated(decoder(delta_w))
            delta_w = add(delta_w, residual)
        delta_w = self.peanut_B(delta_w)
        return transpose(scale(delta_w), 0, 1)

    def activated(self, x: Tensor) -> Tensor:
        """A module of the activation function: it holds its input until it returns."""
        out = self.non_linear(x)
        return out


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method peanut over quantised layers is not modelled.")
    depth = workload.peft_config.get("depth", 0)
    act_fn = workload.peft_config.get("act_fn", "relu")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return PeanutLinear(base_layer, workload.rank, depth, act_fn)

    tune(model, workload, make)
    return model
