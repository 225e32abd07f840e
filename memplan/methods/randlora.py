"""RandLoRA as PEFT runs it: a full-rank update of random bases that all layers share, scaled.

Source: huggingface/peft v0.21.2 tuners/randlora/layer.py, tuners/randlora/model.py.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.linalg import linear
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import Meta, add, binary, dropout, scale, to
from memplan.engine.ops.views import narrow, reshape, transpose
from memplan.engine.sizes import ceil_div
from memplan.engine.tensor import normal, restrided
from memplan.errors import UnsupportedError
from memplan.methods.tuner import TunerLayer, targets_of, tune
from memplan.methods.vera import ProjectingLayer, Projections
from memplan.workload import Workload


class RandLoraLinear(ProjectingLayer):
    """``peft.tuners.randlora.layer.Linear``."""

    def __init__(
        self, base_layer: Linear, rank: int, p: float, shared: Projections, saves: bool
    ) -> None:
        super().__init__(base_layer)
        self.smaller = min(self.in_features, self.out_features)
        self.larger = max(self.in_features, self.out_features)
        self.num_bases = ceil_div(self.smaller, rank)
        self.randlora_lambda = self.entry(rank, self.num_bases)
        self.randlora_gamma = self.entry(self.num_bases, self.smaller)
        self.rank, self.dropout = rank, p
        self.share(shared, saves=saves)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        update_B, update_A = self.scaled_bases()
        x = to(x, update_A.dtype)
        result = add(result, scale(linear(linear(dropout(x, self.dropout), update_B), update_A)))
        result = to(result, previous_dtype)
        return result

    def scaled_bases(self) -> tuple[Tensor, Tensor]:
        """``get_scaled_bases``: the smaller basis is scaled; it is applied to the smaller side."""
        randlora_A, randlora_B = self.shared.tensors
        sliced_A = narrow(randlora_A, 2, self.smaller)
        sliced_B = narrow(narrow(randlora_B, 0, self.larger), 1, self.num_bases)
        inner = self.num_bases * self.rank
        update_B = reshape(sliced_B, (self.larger, inner))
        scaled = unique_base(sliced_A, self.randlora_lambda.default, self.randlora_gamma.default)
        update_A = reshape(scaled, (inner, self.smaller))
        if self.smaller == self.in_features:
            return update_A, update_B
        return transpose(update_B, 0, 1), transpose(update_A, 0, 1)


def unique_base(A: Tensor, lamda: Tensor, gamma: Tensor) -> Tensor:
    """``UniqueBaseGrad``: (r, 1, n), (r, b), (b, n) -> (r, b, n), scaled twice."""
    if not needs_grad(lamda, gamma):
        return scaled_twice(A, lamda, gamma)
    m_A, m_lambda, m_gamma = Meta(A), Meta(lamda), Meta(gamma)

    def backward(grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_lambda = contracted(grad, m_A, m_lambda, m_gamma.shape[1], by_columns=True)
        grad_gamma = contracted(grad, m_A, m_gamma, m_lambda.shape[0], by_columns=False)
        return None, grad_lambda, grad_gamma

    node = PyNode((A, lamda, gamma), (A, lamda, gamma), backward)
    return node.finish(scaled_twice(A, lamda, gamma))


def contracted(grad: Tensor, A: Meta, wanted: Meta, inner: int, *, by_columns: bool) -> Tensor:
    """``einsum`` of the gradient, A and the other vector: a product of all, then a batched one.

    The batch is the bases, so what has them as its columns comes out transposed.
    """
    weighted = binary(grad, A)
    out = product(wanted.shape, grad.dtype, inner)
    del weighted
    if by_columns:
        shape = wanted.shape
        return restrided(out, shape, normal(shape, (1, shape[0])))
    return out


def scaled_twice(A: Tensor, lamda: Tensor, gamma: Tensor) -> Tensor:
    """``lambda[:, :, None] * A * gamma[None,]``."""
    (r, b), n = lamda.shape, A.shape[2]
    by_lambda = binary(Tensor((r, b, 1), lamda.dtype, None), A)
    return binary(by_lambda, Tensor((1, b, n), gamma.dtype, None))


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: bases as large as the largest layer wants, and the layers.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method randlora over quantised layers is not modelled.")
    found = [layer for _, layer in targets_of(model, workload)]
    widest, tallest = max(f.in_features for f in found), max(f.out_features for f in found)
    smaller, larger, rank = min(widest, tallest), max(widest, tallest), workload.rank
    shared = Projections((rank, 1, smaller), (larger, ceil_div(smaller, rank), rank))
    p = workload.peft_config.get("randlora_dropout", 0.0)
    saves = workload.peft_config.get("save_projection", True)

    def make(base_layer: Linear, name: str, _: int) -> TunerLayer:
        return RandLoraLinear(base_layer, rank, p, shared, saves)

    tune(model, workload, make)
    return model
