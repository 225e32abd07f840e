"""OFT as PEFT runs it: the input is rotated, block by block, before the frozen layer.

A rotation is made of a skew-symmetric matrix by the first terms of a Neumann series, in every
forward. The multiplicative dropout is made and never used on linear layers.

Source: huggingface/peft v0.21.2 tuners/oft/layer.py ``OFTRotationModule``, ``Linear``.
"""

from __future__ import annotations

from memplan.dtypes import INT64
from memplan.engine import Tensor, empty
from memplan.engine.autograd import Node, needs_grad
from memplan.engine.nn import Linear, Module, parameter
from memplan.engine.ops.arithmetic import add_, add_scaled_, sub
from memplan.engine.ops.einsum import bmm, rotate_blocks
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import repeat_batch, reshape, transpose, view
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload

BLOCK_SIZE, TERMS = 32, 5
"""PEFT's defaults of ``oft_block_size`` and ``num_cayley_neumann_terms``."""


class OFTRotationModule(Module):
    """The entries above the diagonal, and where they go, which no checkpoint holds."""

    def __init__(self, base_layer: Linear, block_size: int, terms: int, *, shares: bool) -> None:
        self.rank = base_layer.in_features // block_size
        self.block_size, self.terms, self.shares = block_size, terms, shares
        n = block_size * (block_size - 1) // 2
        self.weight = parameter((1 if shares else self.rank, n), base_layer.compute_dtype)
        self.indices = empty((n,), INT64), empty((n,), INT64)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> the same shape."""
        required_dtype = x.dtype
        folded_shape = x.shape
        orth_rotate = self.cayley()
        x_reshaped = view(x, (*x.shape[:-1], self.rank, self.block_size))
        if self.shares:
            orth_rotate = repeat_batch(orth_rotate, self.rank)
        x_rotated_reshaped = rotate_blocks(x_reshaped, orth_rotate)
        x_rotated = reshape(x_rotated_reshaped, folded_shape)
        return to(x_rotated, required_dtype)

    def cayley(self) -> Tensor:
        """``_cayley_batch``: the identity and the powers of the skew-symmetric matrix."""
        b, size = self.weight.shape[0], self.block_size
        skew = self.skew_symmetric()
        eye = empty((size, size), skew.dtype)
        R = empty((b, size, size), skew.dtype)
        del eye
        R = add_scaled_(R, skew)
        if self.terms > 2:
            squared = bmm(skew, skew)
            R = add_scaled_(R, squared)
            power = squared
            for _ in range(3, self.terms - 1):
                power = bmm(power, skew)
                R = add_scaled_(R, power)
            power = bmm(power, skew)
            R = add_(R, power)
            del power, squared
        return R

    def skew_symmetric(self) -> Tensor:
        """``_pytorch_skew_symmetric``."""
        matrix = self.placed(self.weight)
        matrix = sub(matrix, transpose(matrix, 1, 2))
        return matrix

    def placed(self, vec: Tensor) -> Tensor:
        """``matrix[:, rows, cols] = vec``: ``index_put_: values: grad.index(indices)``."""
        out = empty((vec.shape[0], self.block_size, self.block_size), vec.dtype)
        if not needs_grad(vec):
            return out
        shape = vec.shape
        node = Node((vec,), self.indices, lambda grad: (empty(shape, grad.dtype),))
        return node.finish(out)


class OFTLinear(TunerLayer):
    """``peft.tuners.oft.layer.Linear``, quantised or not."""

    def __init__(self, base_layer: Linear, block_size: int, terms: int, *, shares: bool) -> None:
        super().__init__(base_layer)
        size = fitting_block_size(self.in_features, block_size)
        self.oft_R = OFTRotationModule(base_layer, size, terms, shares=shares)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        x = to(x, self.oft_R.weight.dtype)
        x = self.oft_R(x)
        result = self.base_layer(to(x, previous_dtype))
        result = to(result, previous_dtype)
        return result


def fitting_block_size(in_features: int, wanted: int) -> int:
    """``adjust_oft_parameters``: the divisor that is nearest, the smaller of two.

    Example:
        >>> fitting_block_size(96, 32), fitting_block_size(96, 17), fitting_block_size(8, 32)
        (32, 16, 8)
    """
    if wanted >= in_features:
        return in_features
    higher = next(n for n in range(wanted, in_features + 1) if in_features % n == 0)
    lower = next(n for n in range(wanted, 0, -1) if in_features % n == 0)
    return lower if wanted - lower <= higher - wanted else higher


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""
    options = workload.peft_config
    block_size = options.get("oft_block_size", BLOCK_SIZE)
    terms = options.get("num_cayley_neumann_terms", TERMS)
    shares = options.get("block_share", False)

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return OFTLinear(base_layer, block_size, terms, shares=shares)

    tune(model, workload, make)
    return model
