"""VeRA as PEFT runs it: two random matrices that all layers share, and vectors that train.

The matrices are as large as the largest adapted layer wants; each layer takes a corner of them.

Source: huggingface/peft v0.21.2 tuners/vera/layer.py, tuners/vera/model.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.einsum import exp, halves
from memplan.engine.ops.linalg import linear
from memplan.engine.ops.pointwise import add, dropout, mul, scale, to
from memplan.engine.ops.views import clone, narrow
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Shape, empty
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, bits_of, targets_of, tune
from memplan.workload import Workload


class Projections:
    """``vera_A`` and ``vera_B``: buffers of no layer, moved with the first layer.

    Attributes:
        shapes: Of each.
        tensors: Each on the device, once a layer has been made.
    """

    def __init__(self, *shapes: Shape) -> None:
        self.shapes = shapes
        self.tensors: list[Tensor] = []

    def move(self, base_layer: Linear) -> bool:
        """To the device in the base layer's dtype; whether this layer was the first."""
        if self.tensors:
            return False
        here = S.tape.origin
        S.tape.enter(OUTSIDE)
        self.tensors = [empty(shape, base_layer.compute_dtype) for shape in self.shapes]
        S.tape.enter(here)
        for t in self.tensors:
            t.layer, t.copies = OUTSIDE, 1
        return True

    def cast_up(self) -> None:
        """16-bit ones become fp32, one by one."""
        for i in range(len(self.tensors)):
            if self.tensors[i].dtype is BF16 or self.tensors[i].dtype is FP16:
                self.tensors[i] = self.upcast(self.tensors[i])

    def upcast(self, t: Tensor) -> Tensor:
        """The same in fp32."""
        S.tape.enter(OUTSIDE)
        out = empty(t.shape, FP32)
        out.layer, out.copies = OUTSIDE, 1
        return out


class ProjectingLayer(TunerLayer):
    """A layer that trains vectors between tensors which all layers share, and the first moves."""

    def share(self, shared: Projections, *, saves: bool) -> None:
        """Take the shared tensors; ``save_projection`` saves them once."""
        self.shared = shared
        self.is_first = shared.move(self.base_layer)
        self.saves = saves and self.is_first

    def cast_adapter(self) -> None:
        """The vectors, and with the first layer what is shared."""
        super().cast_adapter()
        if self.is_first:
            self.shared.cast_up()

    def saved_beside(self) -> Iterator[Tensor]:
        """``save_projection``: what is shared, once."""
        if self.saves:
            yield from self.shared.tensors


class VeraLinear(ProjectingLayer):
    """``peft.tuners.vera.layer.Linear``, quantised or not."""

    draws = 1

    def __init__(
        self, base_layer: Linear, rank: int, p: float, shared: Projections, saves: bool
    ) -> None:
        super().__init__(base_layer)
        self.vera_lambda_b = self.entry(self.out_features)
        self.vera_lambda_d = self.entry(rank * self.draws)
        self.dropout = p
        self.share(shared, saves=saves)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        orig_dtype = result.dtype
        if bits_of(self.base_layer) == 4:
            result = clone(result)
        lambda_d, lambda_b = self.vera_lambda_d.default, self.vera_lambda_b.default
        sliced_A = narrow(self.shared.tensors[0], 1, self.in_features)
        sliced_B = narrow(self.shared.tensors[1], 0, self.out_features)
        x = to(x, lambda_d.dtype)
        result = add(
            result,
            mul(
                lambda_b,
                linear(mul(lambda_d, linear(dropout(x, self.dropout), sliced_A)), sliced_B),
            ),
        )
        result = to(result, orig_dtype)
        result = to(result, previous_dtype)
        return result


class PveraLinear(VeraLinear):
    """``peft.tuners.pvera.layer.Linear``: the inner vector is drawn from a distribution.

    Source: huggingface/peft v0.21.2 tuners/pvera/layer.py.
    """

    draws = 2

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        lambda_d, lambda_b = self.vera_lambda_d.default, self.vera_lambda_b.default
        sliced_A = narrow(self.shared.tensors[0], 1, self.in_features)
        sliced_B = narrow(self.shared.tensors[1], 0, self.out_features)
        x = to(x, lambda_d.dtype)
        mu, logvar = halves(mul(lambda_d, linear(dropout(x, self.dropout), sliced_A)))
        result = add(result, mul(lambda_b, linear(drawn(mu, logvar), sliced_B)))
        result = to(result, previous_dtype)
        return result


def drawn(mu: Tensor, logvar: Tensor) -> Tensor:
    """``_reparametrize``: ``mu + randn * exp(logvar / 2)``."""
    std = exp(scale(logvar))
    eps = empty(std.shape, std.dtype)
    return add(mu, mul(eps, std))


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model`` of VeRA."""
    return apply_kind(model, workload, VeraLinear, "vera_dropout")


def apply_pvera(model: Module, workload: Workload) -> Module:
    """``get_peft_model`` of PVeRA.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method pvera over quantised layers is not modelled.")
    return apply_kind(model, workload, PveraLinear, "pvera_dropout")


def apply_kind(
    model: Module, workload: Workload, kind: type[VeraLinear], dropout_key: str
) -> Module:
    """Shared matrices as large as the largest layer wants, and the layers."""
    found = [layer for _, layer in targets_of(model, workload)]
    widest = max(layer.in_features for layer in found)
    tallest = max(layer.out_features for layer in found)
    shared = Projections((workload.rank * kind.draws, widest), (tallest, workload.rank))
    p = workload.peft_config.get(dropout_key, 0.0)
    saves = workload.peft_config.get("save_projection", True)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return kind(base_layer, workload.rank, p, shared, saves)

    tune(model, workload, make)
    return model
