"""DeLoRA as PEFT runs it: LoRA whose factors are normalised, and whose strength trains.

Source: huggingface/peft v0.21.2 tuners/delora/layer.py ``DeloraLinear``.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.engine.ops.arithmetic import add_, clamp_min, div
from memplan.engine.ops.linalg import linear
from memplan.engine.ops.norm import borrow_for_norm, norms
from memplan.engine.ops.pointwise import add, dropout, mul, scale, to
from memplan.engine.tensor import empty
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload


class DeloraLinear(TunerLayer):
    """``DeloraLinear``: the norms of the weight's columns are a buffer, which is saved."""

    def __init__(self, base_layer: Linear, rank: int, p: float) -> None:
        super().__init__(base_layer)
        self.norms = (self.buffer(base_layer.weight.dtype),)
        borrow_for_norm(base_layer.weight, 0)
        self.delora_A = self.entry(rank, self.in_features)
        self.delora_B = self.entry(self.out_features, rank)
        self.delora_lambda = self.entry(1)
        self.dropout = p

    def buffer(self, dtype: DType) -> Tensor:
        """A tensor of ``delora_w_norm``."""
        return parameter((self.in_features,), dtype, requires_grad=False)

    def cast_adapter(self) -> None:
        """The parameters, then the buffer."""
        super().cast_adapter()
        (old,) = self.norms
        if old.dtype is BF16 or old.dtype is FP16:
            with building_layer(old.layer, old.copies):
                self.norms = (self.buffer(FP32),)

    def saved_beside(self) -> Iterator[Tensor]:
        """``BufferDict({}, persistent=True)``."""
        yield from self.norms

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        base_out = self.base_layer(x)
        add_out = empty(base_out.shape, base_out.dtype, base_out.strides)
        lora_A, lora_B = self.delora_A.default, self.delora_B.default
        x_d = dropout(x, self.dropout)
        h = linear(mul(x_d, self.norms[0]), lora_A)
        An = clamp_min(norms(lora_A, 1))
        Bn = clamp_min(norms(lora_B, 0))
        scaling = div(scale(self.delora_lambda.default), mul(An, Bn))
        h = mul(h, scaling)
        h = linear(h, lora_B)
        add_out = add_(add_out, h)
        result = add(base_out, to(add_out, base_out.dtype))
        result = to(result, previous_dtype)
        return result


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method delora over quantised layers is not modelled.")
    p = workload.peft_config.get("module_dropout", 0.0)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return DeloraLinear(base_layer, rank, p)

    tune(model, workload, make)
    return model
