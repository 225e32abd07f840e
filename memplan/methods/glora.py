"""GLoRA as PEFT runs it: a second weight is made of the frozen one; the input goes through both.

Layers without a bias only: with one, three further terms train, which are not mirrored; here they
are zeros, which the checkpoint holds.

Source: huggingface/peft v0.21.2 tuners/glora/layer.py ``GloraLinear``.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, parameter
from memplan.engine.ops.arithmetic import sub
from memplan.engine.ops.linalg import linear, matmul
from memplan.engine.ops.pointwise import add, mul, scale, to
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload


class GloraLoraPath(Module):
    """A low-rank matrix."""

    def __init__(self, base_layer: Linear, rank: int) -> None:
        dtype = base_layer.compute_dtype
        self.Xd = parameter((base_layer.out_features, rank), dtype)
        self.Xu = parameter((rank, base_layer.in_features), dtype)

    def forward(self) -> Tensor:
        """(out_features, in_features)."""
        return matmul(self.Xd, self.Xu)


class GloraVectorPath(Module):
    """A number for each output."""

    def __init__(self, base_layer: Linear, rank: int) -> None:
        self.X = parameter((base_layer.out_features, 1), base_layer.compute_dtype)

    def forward(self) -> Tensor:
        """(out_features, 1)."""
        return self.X


PATHS: dict[str, type[GloraLoraPath | GloraVectorPath]] = {
    "lora": GloraLoraPath,
    "vector": GloraVectorPath,
}


class GloraLinear(TunerLayer):
    """``GloraLinear`` of a layer without a bias."""

    def __init__(self, base_layer: Linear, rank: int, path: str) -> None:
        super().__init__(base_layer)
        self.glora_A = PATHS[path](base_layer, rank)
        self.glora_B = PATHS[path](base_layer, rank)
        shapes = (self.in_features, 1), (self.out_features,), (self.out_features,)
        self.zeros = tuple(parameter(s, base_layer.compute_dtype, False) for s in shapes)

    def saved_beside(self) -> Iterator[Tensor]:
        """``GloraEmptyPath``: zeros, as buffers."""
        yield from self.zeros

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        base_result = self.base_layer(x)
        torch_result_dtype = base_result.dtype
        result = base_result
        weight = self.base_layer.weight
        A = to(self.glora_A(), weight.dtype)
        B = to(self.glora_B(), weight.dtype)
        weight_eff = add(add(weight, mul(weight, A)), B)
        adapted = linear(x, weight_eff)
        result = add(result, adapted)
        result = sub(result, scale(base_result))
        result = to(result, torch_result_dtype)
        return result


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: A layer is quantised or has a bias.
    """
    if workload.is_quantized:
        raise UnsupportedError("method glora over quantised layers is not modelled.")
    path = workload.peft_config.get("config_A_B", "lora")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        if base_layer.bias is not None:
            raise UnsupportedError(f"method glora over a layer with a bias ({name}).")
        return GloraLinear(base_layer, workload.rank, path)

    tune(model, workload, make)
    return model
