"""LoKr as PEFT runs it: the update is a Kronecker product, whose factors may be of low rank.

Source: huggingface/peft v0.21.2 tuners/lokr/layer.py, tuners/lycoris_utils.py;
pytorch/pytorch v2.14.1 ``aten/src/ATen/native/LinearAlgebra.cpp`` ``kron``.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.linalg import matmul
from memplan.engine.ops.pointwise import mul, scale
from memplan.engine.ops.views import reshape, view
from memplan.methods.loha import LycorisLinear, refuse_4bit
from memplan.methods.tuner import Entry, TunerLayer, tune
from memplan.workload import Workload


class LoKrLinear(LycorisLinear):
    """``peft.tuners.lokr.layer.Linear``: each factor is a matrix, or a product of two."""

    def __init__(self, base_layer: Linear, rank: int, factor: int, decompose_both: bool) -> None:
        super().__init__(base_layer)
        in_m, in_n = factorization(self.in_features, factor)
        out_l, out_k = factorization(self.out_features, factor)
        self.lokr_w1: Entry | None = None
        self.lokr_w1_a: Entry | None = None
        self.lokr_w1_b: Entry | None = None
        self.lokr_w2: Entry | None = None
        self.lokr_w2_a: Entry | None = None
        self.lokr_w2_b: Entry | None = None
        if decompose_both and rank < max(out_l, in_m) / 2:
            self.lokr_w1_a, self.lokr_w1_b = self.entry(out_l, rank), self.entry(rank, in_m)
        else:
            self.lokr_w1 = self.entry(out_l, in_m)
        if rank < max(out_k, in_n) / 2:
            self.lokr_w2_a, self.lokr_w2_b = self.entry(out_k, rank), self.entry(rank, in_n)
        else:
            self.lokr_w2 = self.entry(out_k, in_n)

    def delta_weight(self) -> Tensor:
        """``torch.kron`` of the factors, scaled, and a view."""
        w1 = factor_of(self.lokr_w1, self.lokr_w1_a, self.lokr_w1_b)
        w2 = factor_of(self.lokr_w2, self.lokr_w2_a, self.lokr_w2_b)
        weight = scaled_kron(w1, w2)
        weight = reshape(weight, (self.out_features, self.in_features))
        return weight


def factor_of(whole: Entry | None, a: Entry | None, b: Entry | None) -> Tensor:
    """A matrix, or the product of two."""
    if whole is not None:
        return whole.default
    assert a is not None
    assert b is not None
    return matmul(a.default, b.default)


def scaled_kron(w1: Tensor, w2: Tensor) -> Tensor:
    """``make_kron``: ``mul`` of the operands seen as (a, 1, b, 1) and (1, c, 1, d), seen flat."""
    (a, b), (c, d) = w1.shape, w2.shape
    rebuild = view(mul(reshape(w1, (a, 1, b, 1)), reshape(w2, (1, c, 1, d))), (a * c, b * d))
    return scale(rebuild)


def factorization(dimension: int, factor: int = -1) -> tuple[int, int]:
    """Two numbers whose product is ``dimension``, the smaller first.

    Example:
        >>> factorization(128), factorization(128, 4), factorization(127)
        ((8, 16), (4, 32), (1, 127))
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    factor = dimension if factor == -1 else factor
    m, n = 1, dimension
    length = m + n
    while m < n:
        new_m = m + 1
        while dimension % new_m:
            new_m += 1
        new_n = dimension // new_m
        if new_m + new_n > length or new_m > factor:
            break
        m, n = new_m, new_n
    return min(m, n), max(m, n)


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""
    factor = workload.peft_config.get("decompose_factor", -1)
    both = workload.peft_config.get("decompose_both", False)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        refuse_4bit(base_layer, name, "lokr")
        return LoKrLinear(base_layer, rank, factor, both)

    tune(model, workload, make)
    return model
