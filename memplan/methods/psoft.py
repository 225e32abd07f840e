"""PSOFT as PEFT runs it: the weight's main directions are fixed, and rotated between each other.

Source: huggingface/peft v0.21.2 tuners/psoft/layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.dtypes import BF16, FP16, FP32, INT64
from memplan.engine import Tensor
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.engine.ops.arithmetic import add_, add_scaled_, sub
from memplan.engine.ops.decomposition import orthogonal_factor, singular_values
from memplan.engine.ops.linalg import matmul, matmul_t
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import add, dropout, mul, scale, to
from memplan.engine.ops.views import narrow, transpose, unsqueeze
from memplan.engine.tensor import empty
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload


@dataclass(frozen=True, slots=True)
class PsoftOptions:
    """What of a ``PsoftConfig`` shapes one layer; the names are PEFT's without ``psoft_``."""

    rank: int
    dropout: float
    orth: bool
    mag_b: bool
    mag_a: bool
    terms: int
    lowrank_iterations: int | None
    pissa: bool

    @classmethod
    def of(cls, workload: Workload) -> PsoftOptions:
        """The options of a workload."""
        o = workload.peft_config
        lowrank = o.get("psoft_svd", "full") == "lowrank"
        return cls(
            workload.rank,
            o.get("psoft_dropout", 0.0),
            o.get("psoft_orth", True),
            o.get("psoft_mag_b", True),
            o.get("psoft_mag_a", True),
            o.get("num_cayley_neumann_terms", 5),
            o.get("psoft_svd_lowrank_niter", 10) if lowrank else None,
            o.get("ab_svd_init", "psoft_init") == "pissa_init",
        )


class OrthLayer(Module):
    """The rotation R: entries above the diagonal, and where they go; two scales."""

    def __init__(self, base_layer: Linear, o: PsoftOptions) -> None:
        size, dtype = o.rank, base_layer.compute_dtype
        self.options = o
        n = size * (size - 1) // 2
        self.weight = parameter((n,) if o.orth else (size, size), dtype)
        self.vector_b = parameter((size,), dtype) if o.mag_b else None
        self.vector_a = parameter((size,), dtype) if o.mag_a else None
        self.indices = (empty((n,), INT64), empty((n,), INT64)) if o.orth else ()

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., size) -> the same shape."""
        R = self.matrix()
        return to(matmul_t(x, to(R, x.dtype)), x.dtype)

    def matrix(self) -> Tensor:
        """``get_matrix``: what the rotation was made of lives until it is scaled, too."""
        R, *kept = self.rotation() if self.options.orth else [self.weight]
        if self.vector_b is not None:
            R = mul(unsqueeze(self.vector_b, 1), R)
        if self.vector_a is not None:
            R = mul(R, unsqueeze(self.vector_a, 0))
        del kept
        return R

    def rotation(self) -> list[Tensor]:
        """``use_cayley_neumann``: the identity and the powers of the skew-symmetric matrix."""
        Q = self.skew_symmetric()
        id_mat = empty(Q.shape, Q.dtype)
        R = add_scaled_(empty(Q.shape, Q.dtype), Q)
        if self.options.terms == 2:
            return [R, id_mat, Q]
        squared = matmul(Q, Q)
        R = add_scaled_(R, squared)
        power = squared
        for _ in range(3, self.options.terms - 1):
            power = matmul(power, Q)
            R = add_scaled_(R, power)
        power = matmul(power, Q)
        R = add_(R, power)
        return [R, id_mat, Q, squared, power]

    def skew_symmetric(self) -> Tensor:
        """``_skew_symmetric``: ``index_put``, not in place, and what it was put into."""
        zeros = empty((self.options.rank, self.options.rank), self.weight.dtype)
        Q = self.placed(zeros)
        del zeros
        return sub(Q, transpose(Q, 0, 1))

    def placed(self, zeros: Tensor) -> Tensor:
        """``index_put: self: grad.index_put(...); values: grad.index(indices)``."""
        shape = self.weight.shape
        node = None
        if needs_grad(self.weight):
            node = Node((self.weight,), self.indices, lambda grad: (empty(shape, grad.dtype),))
        out = empty(zeros.shape, zeros.dtype)
        return out if node is None else node.finish(out)


class PsoftLinear(TunerLayer):
    """``peft.tuners.psoft.layer.Linear``: A and B are fp32 buffers that are never saved."""

    def __init__(self, base_layer: Linear, o: PsoftOptions) -> None:
        super().__init__(base_layer)
        self.psoft_R = OrthLayer(base_layer, o)
        self.cache = fixed_matrices(base_layer.weight, o)
        self.dropout = o.dropout

    def cast_adapter(self) -> None:
        """R's parameters are listed first, so the old ones go together."""
        listed = [getattr(owner, name) for owner, name in self.adapter_tensors()]
        for owner, name in self.adapter_tensors():
            old = getattr(owner, name)
            if old.dtype is BF16 or old.dtype is FP16:
                with building_layer(old.layer, old.copies):
                    setattr(owner, name, parameter(old.shape, FP32))
        del listed

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        A, B = self.cache
        x_cast = to(x, A.dtype)
        x_d = dropout(x_cast, self.dropout)
        xa = matmul_t(x_d, A)
        xr = self.psoft_R(xa)
        delta_y = matmul_t(sub(xr, xa), B)
        result = add(result, scale(delta_y))
        result = to(result, torch_result_dtype)
        return result


def fixed_matrices(weight: Tensor, o: PsoftOptions) -> tuple[Tensor, Tensor]:
    """``_build_psoft_ab_cache_buffers``: (r, in) and (out, r)."""
    W = to(weight, FP32)
    Vr, Sr, Uhr = factors(W, o)
    Sr_scaled = empty(Sr.shape, FP32)
    r = o.rank
    if o.pissa:
        s_sqrt = empty(Sr.shape, FP32)
        diagonal = empty((r, r), FP32)
        A = product((r, weight.shape[1]), FP32, r)
        del diagonal
        diagonal = empty((r, r), FP32)
        B = product((weight.shape[0], r), FP32, r)
        del diagonal, s_sqrt
    else:
        A = Uhr
        diagonal = empty((r, r), FP32)
        B = product((weight.shape[0], r), FP32, r)
        del diagonal
    A = A if A.strides is None else empty(A.shape, FP32)
    del Sr_scaled, Vr, Sr, Uhr, W
    for t in (A, B):
        t.layer, t.copies = weight.layer, weight.copies
    return A, B


def factors(W: Tensor, o: PsoftOptions) -> tuple[Tensor, Tensor, Tensor]:
    """``_compute_svd_factors``: views of the whole decomposition, or of a part's."""
    r = o.rank
    if o.lowrank_iterations is None:
        U, S, Vh = singular_values(W)
        return narrow(U, 1, r), narrow(S, 0, r), narrow(Vh, 0, r)
    U, S, V = svd_lowrank(W, r, o.lowrank_iterations)
    return narrow(U, 1, r), narrow(S, 0, r), transpose(narrow(V, 1, r), 0, 1)


def svd_lowrank(A: Tensor, q: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.svd_lowrank``: (U, S, V) of a few columns that span most of the matrix.

    Source: pytorch/pytorch v2.14.1 torch/_lowrank.py.
    """
    m, n = max(A.shape), min(A.shape)
    R = empty((n, q), FP32)
    X = product((m, q), FP32, n)
    Q = columns(X)
    for _ in range(iterations):
        X = product((n, q), FP32, m)
        Q = columns(X)
        X = product((m, q), FP32, n)
        Q = columns(X)
    del R, X
    B = product((q, n), FP32, m)
    U, S, Vh = singular_values(B)
    V = transpose(Vh, 0, 1)
    U = product(Q.shape, FP32, q)
    if A.shape[0] < A.shape[1]:
        U, V = V, U
    return U, S, V


def columns(X: Tensor) -> Tensor:
    """``torch.linalg.qr(X).Q``: R goes at once."""
    Q, R = orthogonal_factor(X)
    del R
    return Q


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        ConfigError: The rank is above a layer's sizes.
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method psoft over quantised layers is not modelled.")
    o = PsoftOptions.of(workload)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        if o.rank > min(base_layer.in_features, base_layer.out_features):
            raise ConfigError(f"rank: {o.rank} is above the size of {name}; psoft takes no more.")
        return PsoftLinear(base_layer, o)

    tune(model, workload, make)
    return model
