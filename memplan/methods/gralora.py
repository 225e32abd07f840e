"""GraLoRA as PEFT runs it: LoRA on each of k x k blocks of the weight, as two batched products.

Source: huggingface/peft v0.21.2 tuners/gralora/layer.py ``Linear``.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.arithmetic import add_
from memplan.engine.ops.einsum import rotate_blocks
from memplan.engine.ops.pointwise import dropout, scale, to
from memplan.engine.ops.views import permute, reshape, view
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload

BLOCKS = 2
"""PEFT's default of ``gralora_k``."""


class GraloraLinear(TunerLayer):
    """``peft.tuners.gralora.layer.Linear`` without the hybrid part."""

    def __init__(self, base_layer: Linear, name: str, rank: int, k: int, p: float) -> None:
        super().__init__(base_layer)
        for what, n in (("inputs", self.in_features), ("outputs", self.out_features)):
            if n % k:
                raise ConfigError(
                    f"peft_config: gralora_k: {k} does not divide the {n} {what} of {name}."
                )
        self.gralora_A = self.entry(k, self.in_features // k, rank)
        self.gralora_B = self.entry(k, rank, self.out_features // k)
        self.rank, self.k, self.dropout = rank, k, p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        B, L, _ = x.shape
        output = reshape(
            rotate_blocks(self.exchanged(x), self.gralora_B.default), (B, L, self.out_features)
        )
        result = add_(result, scale(to(output, torch_result_dtype)))
        result = to(result, previous_dtype)
        return result

    def exchanged(self, x: Tensor) -> Tensor:
        """The inner vectors of each column of blocks, in pieces, given to each row of blocks."""
        (B, L, D), N = x.shape, self.k
        dropped = view(
            dropout(to(x, self.gralora_A.default.dtype), self.dropout), (B, L, N, D // N)
        )
        inner = rotate_blocks(dropped, self.gralora_A.default)
        del dropped
        pieces = permute(view(inner, (B, L, N, N, self.rank // N)), (0, 1, 3, 2, 4))
        return reshape(pieces, (B, L, N, self.rank))


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        ConfigError: The blocks do not divide the rank or a layer.
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method gralora over quantised layers is not modelled.")
    k = workload.peft_config.get("gralora_k", BLOCKS)
    p = workload.peft_config.get("gralora_dropout", 0.0)
    if workload.rank % k:
        raise ConfigError(f"peft_config: gralora_k: {k} does not divide the rank {workload.rank}.")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return GraloraLinear(base_layer, name, workload.rank, k, p)

    tune(model, workload, make)
    return model
