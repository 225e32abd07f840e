"""DEFT as PEFT runs it, in fp32: a subspace of the output is removed, and another update put in.

Source: huggingface/peft v0.21.2 tuners/deft/layer.py ``DeftLinear``.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.activations import relu
from memplan.engine.ops.arithmetic import sub
from memplan.engine.ops.linalg import linear, matmul_rows
from memplan.engine.ops.matmul import product
from memplan.engine.ops.orthogonal import orthogonal_columns
from memplan.engine.ops.pointwise import add, dropout, scale, to, unary
from memplan.engine.ops.views import transpose
from memplan.engine.state import no_grad
from memplan.engine.tensor import empty
from memplan.errors import UnsupportedError
from memplan.methods.tuner import Entry, TunerLayer, tune
from memplan.workload import Workload


class DeftLinear(TunerLayer):
    """``DeftLinear``: with ``para`` there is no R, only a subspace that is taken away."""

    def __init__(
        self, base_layer: Linear, rank: int, method: str, p: float, *, para: bool, init: bool
    ) -> None:
        super().__init__(base_layer)
        rank = min(rank, self.out_features)
        if init and not para:
            self.compute_removed(rank, method)
        self.deft_P = self.entry(self.out_features, rank)
        self.deft_R: Entry | None = None if para else self.entry(rank, self.in_features)
        self.method, self.dropout = method, p

    def compute_removed(self, rank: int, method: str) -> None:
        """``reset_deft_parameters``: what R must be for an update of zero, made on the device."""
        weight = self.base_layer.weight
        P = empty((self.out_features, rank), FP32)
        with no_grad():
            right = relu(P) if method == "relu" else orthogonal_columns(P)
        W = empty(weight.shape, FP32) if weight.dtype is not FP32 else weight
        R_init = product((rank, self.in_features), FP32, self.out_features)
        R_init = unary(R_init)
        del R_init, W, right, P

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        bias = self.base_layer.bias
        base_out = self.base_layer(x)
        result = to(base_out, FP32)
        base_product = result if bias is None else sub(result, to(bias, FP32))
        x = to(x, FP32)
        Q_P, right = self.projected()
        correction = matmul_rows(rows_product(base_product, right), transpose(Q_P, 0, 1))
        result = sub(result, correction)
        if self.deft_R is not None:
            R = to(self.deft_R.default, FP32)
            R = scale(R)
            x_drop = dropout(x, self.dropout)
            result = add(result, matmul_rows(linear(x_drop, R), transpose(Q_P, 0, 1)))
        result = to(result, previous_dtype)
        return result

    def projected(self) -> tuple[Tensor, Tensor]:
        """``_project``: what is put in, and what the output is projected on."""
        P = to(self.deft_P.default, FP32)
        if self.method == "relu":
            Q_P = P
            right = relu(P)
            return Q_P, right
        Q_P = orthogonal_columns(P)
        return Q_P, Q_P


def rows_product(x: Tensor, mat2: Tensor) -> Tensor:
    """``x @ mat2`` as Python writes it."""
    out = matmul_rows(x, mat2)
    return out


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method deft over quantised layers is not modelled.")
    o = workload.peft_config
    method, p = o.get("decomposition_method", "relu"), o.get("deft_dropout", 0.0)
    para, init = o.get("para", False), o.get("init_weights", True)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return DeftLinear(base_layer, workload.rank, method, p, para=para, init=init)

    tune(model, workload, make)
    return model
