"""TinyLoRA as PEFT runs it: a few numbers mix random matrices between the weight's main directions.

Source: huggingface/peft v0.21.2 tuners/tinylora/layer.py, tuners/tinylora/model.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.engine.ops.contraction import weighted_sum
from memplan.engine.ops.decomposition import singular_values
from memplan.engine.ops.linalg import linear
from memplan.engine.ops.pointwise import add, binary, dropout, to, unary
from memplan.engine.ops.views import narrow, unsqueeze
from memplan.engine.tensor import Shape
from memplan.errors import UnsupportedError
from memplan.methods.tuner import Entry, TunerLayer, targets_of, tune
from memplan.workload import Workload

U = 64
"""PEFT's default of ``u``."""


class TinyLoraLinear(TunerLayer):
    """``peft.tuners.tinylora.layer.Linear``: A, B and P are buffers, which are saved."""

    def __init__(
        self, base_layer: Linear, v: Entry | None, rank: int, u: int, p: float, saves: bool
    ) -> None:
        super().__init__(base_layer)
        A, B = main_directions(base_layer.weight, min(rank, self.in_features, self.out_features))
        dtype = base_layer.compute_dtype
        self.tinylora_v = v or Entry((u,), dtype)
        inner = B.shape[1]
        P = parameter((u, inner, inner), dtype, requires_grad=False)
        self.buffers: tuple[Tensor, ...] = (A, B, P)
        self.dropout, self.saves = p, saves

    def cast_adapter(self) -> None:
        """The vector, unless a layer before has it, then the buffers."""
        super().cast_adapter()
        for i in range(len(self.buffers)):
            self.buffers = (*self.buffers[:i], in_fp32(self.buffers[i]), *self.buffers[i + 1 :])

    def saved_beside(self) -> Iterator[Tensor]:
        """A and B, and P for ``save_projection``."""
        yield from self.buffers if self.saves else self.buffers[:2]

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        A, B, P = self.buffers
        R = self.mixed(P)
        x_dropped = dropout(x, self.dropout)
        x_dropped = to(x_dropped, A.dtype)
        h = linear(x_dropped, A)
        h = linear(h, R)
        delta = linear(h, B)
        result = add(result, delta)
        result = to(result, previous_dtype)
        return result

    def mixed(self, P: Tensor) -> Tensor:
        """``_compute_R``."""
        v = self.tinylora_v.default
        P = to(P, v.dtype)
        R = weighted_sum(v, P)
        return R


def main_directions(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``_init_svd``: (r, in) and (out, r) in the weight's dtype."""
    dtype = weight.dtype
    weight_fp32 = to(weight, FP32)
    U, S, Vh = singular_values(weight_fp32)
    U_r = to(narrow(U, 1, rank), dtype)
    S_r = to(narrow(S, 0, rank), dtype)
    V_r = to(narrow(Vh, 0, rank), dtype)
    sqrt_S_r = unary(S_r)
    A = frozen(binary(unsqueeze(sqrt_S_r, 1), V_r), (rank, weight.shape[1]), weight)
    B = frozen(binary(U_r, unsqueeze(sqrt_S_r, 0)), (weight.shape[0], rank), weight)
    return A, B


def frozen(made: Tensor, shape: Shape, weight: Tensor) -> Tensor:
    """A buffer of the layer's; contiguous, so copied if it is not."""
    if made.strides is not None:
        return parameter(shape, made.dtype, requires_grad=False)
    made.layer, made.copies = weight.layer, weight.copies
    return made


def in_fp32(t: Tensor) -> Tensor:
    """A 16-bit buffer becomes fp32."""
    if t.dtype is BF16 or t.dtype is FP16:
        with building_layer(t.layer, t.copies):
            return parameter(t.shape, FP32, requires_grad=False)
    return t


def group_of(index: int, total: int, tying: float) -> int:
    """Which of the vectors a layer takes."""
    groups = max(1, round(total * (1.0 - tying)))
    return min(index // max(1, total // groups), groups - 1)


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: layers of a group share a vector.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method tinylora over quantised layers is not modelled.")
    o = workload.peft_config
    u, p = o.get("u", U), o.get("tinylora_dropout", 0.0)
    saves, tying = o.get("save_projection", True), o.get("weight_tying", 0.0)
    total = len(targets_of(model, workload))
    vectors: dict[int, Entry] = {}
    made: list[TunerLayer] = []

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        group = group_of(len(made), total, tying)
        v = vectors.get(group)
        layer = TinyLoraLinear(base_layer, v, workload.rank, u, p, saves)
        vectors[group] = layer.tinylora_v
        made.append(layer)
        return layer

    tune(model, workload, make)
    return model
