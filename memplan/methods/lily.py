"""Lily as PEFT runs it: layers share low-rank matrices, and a router mixes several of them.

Source: huggingface/peft v0.21.2 tuners/lily/layer.py, tuners/lily/model.py.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.contraction import mean_rows, softmax, weighted_sum
from memplan.engine.ops.linalg import matmul_rows
from memplan.engine.ops.pointwise import add, scale, to
from memplan.engine.ops.views import reshape
from memplan.engine.tensor import numel
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload

NUM_B, STRIDE_A = 2, 1
"""PEFT's defaults."""


class LilyLinear(TunerLayer):
    """``peft.tuners.lily.layer.Linear``."""

    def __init__(self, base_layer: Linear, suffix: str, rank: int, num_B: int) -> None:
        super().__init__(base_layer)
        dtype = base_layer.compute_dtype
        self.lily_A = Linear(self.in_features, rank, dtype)
        self.lily_B = Linear(self.out_features, num_B * rank, dtype)
        self.lily_router = Linear(rank, num_B, dtype)
        self.num_B = num_B
        self.group = suffix, base_layer.weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        weight = self.lily_B.weight
        inner = weight.shape[0] // self.num_B
        B = reshape(weight, (self.num_B, inner, weight.shape[1]))
        x = to(x, self.lily_A.weight.dtype)
        hidden = self.lily_A(x)
        router_logits = self.lily_router(hidden)
        router_probability = softmax(router_logits)
        rows = numel(router_probability.shape[:-1])
        expert_probabilities = mean_rows(reshape(router_probability, (rows, self.num_B)))
        combined_B = weighted_sum(expert_probabilities, B)
        delta = matmul_rows(hidden, combined_B)
        result = add(result, to(scale(delta), torch_result_dtype))
        return result


def share(made: list[LilyLinear], stride_A: int) -> None:
    """``_post_injection_hook``: of each kind one B, and one A for so many layers."""
    kinds: dict[object, list[LilyLinear]] = {}
    for layer in made:
        kinds.setdefault(layer.group, []).append(layer)
    for layers in kinds.values():
        for i, layer in enumerate(layers):
            layer.lily_B = layers[0].lily_B
            layer.lily_A = layers[i // stride_A * stride_A].lily_A


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method lily over quantised layers is not modelled.")
    num_B = workload.peft_config.get("num_B", NUM_B)
    stride_A = workload.peft_config.get("stride_A", STRIDE_A)
    targets = workload.target_modules
    named_by_pattern = isinstance(targets, str) and targets != "all-linear"
    made: list[LilyLinear] = []

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        suffix = "" if named_by_pattern else name.rpartition(".")[2]
        made.append(LilyLinear(base_layer, suffix, workload.rank, num_B))
        return made[-1]

    tune(model, workload, make, lambda: share(made, stride_A))
    return model
