"""MiSS as PEFT runs it: the input's shards are summed, and one matrix multiplies the sum.

It was called Bone before.

Source: huggingface/peft v0.21.2 tuners/miss/layer.py ``MissLinear``.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.einsum import repeat_columns, sum_middle
from memplan.engine.ops.linalg import matmul_rows
from memplan.engine.ops.matmul import bmm, linear
from memplan.engine.ops.pointwise import add, cast, dropout, pad_last, to
from memplan.engine.ops.views import clone, expand, permute, reshape, view
from memplan.engine.sizes import round_up
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.tuner import TunerLayer, bits_of, tune
from memplan.workload import Workload

MINI, BAT = "mini", "bat"


class MissLinear(TunerLayer):
    """``MissLinear``: the matrix is as wide as the output, or a narrow one repeated."""

    def __init__(self, base_layer: Linear, name: str, rank: int, p: float, mini_r: int) -> None:
        super().__init__(base_layer)
        if rank > self.in_features:
            raise ConfigError(f"rank: {rank} is above the {self.in_features} inputs of {name}.")
        if mini_r and self.out_features % mini_r:
            raise ConfigError(
                f"peft_config: mini_r: {mini_r} divides not the {self.out_features} outputs of "
                f"{name}."
            )
        self.miss_block = self.entry(rank, mini_r or self.out_features)
        self.rank, self.dropout, self.mini_r = rank, p, mini_r

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        if bits_of(self.base_layer) == 4:
            result = clone(result)
        miss = self.miss_block.default
        if self.mini_r:
            miss = repeat_columns(miss, self.out_features // self.mini_r)
        if self.in_features % self.rank:
            x = pad_last(x, round_up(self.in_features, self.rank))
        x = to(x, miss.dtype)
        shards = x.shape[-1] // self.rank
        in_shards = (*x.shape[:-1], shards, self.rank)
        result = add(
            result, matmul_rows(sum_middle(view(dropout(x, self.dropout), in_shards)), miss)
        )
        result = to(result, previous_dtype)
        return result


class MissBatLinear(TunerLayer):
    """``MissLinear`` with ``init_weights: bat``: the whole weight is made anew, block by block."""

    def __init__(self, base_layer: Linear, name: str, rank: int) -> None:
        super().__init__(base_layer)
        if self.in_features % rank or self.out_features % rank:
            raise ConfigError(f"rank: {rank} does not divide {name} into square blocks (bat).")
        self.miss_block = self.entry(self.out_features // rank, rank, rank)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        orig_weight = clone(self.base_layer.weight)
        delta_weight = self.delta_weight(orig_weight)
        orig_weight = add(orig_weight, delta_weight)
        x = to(x, orig_weight.dtype)
        bias = self.base_layer.bias
        bias = None if bias is None else to(bias, orig_weight.dtype)
        result = linear(x, orig_weight, bias)
        result = to(result, previous_dtype)
        return result

    def delta_weight(self, orig_weight: Tensor) -> Tensor:
        """``get_delta_weight``: ``W @ B + B`` of every block."""
        miss_B, r = self.miss_block.default, self.rank
        N, M = self.out_features // r, self.in_features // r
        orig_weight = to(orig_weight, miss_B.dtype)
        W = permute(view(orig_weight, (N, r, M, r)), (2, 0, 1, 3))
        result = add(self.products(W, miss_B), miss_B)
        return reshape(permute(result, (1, 2, 0, 3)), orig_weight.shape)

    def products(self, W: Tensor, miss_B: Tensor) -> Tensor:
        """``W @ miss_B``: both expanded to (M, N) blocks, copied, and multiplied by ``bmm``."""
        B_cast, W_cast = cast(miss_B), cast(W)
        (M, N, r, _) = W.shape
        rows = reshape(W_cast, (M * N, r, r))
        blocks = reshape(expand(B_cast, (M, N, r, r)), (M * N, r, r))
        return view(bmm(rows, blocks), (M, N, r, r))


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""
    options = workload.peft_config
    p = options.get("miss_dropout", 0.0)
    mini_r = options.get("mini_r", 1) if options.get("init_weights") == MINI else 0

    is_bat = options.get("init_weights") == BAT
    if is_bat and workload.is_quantized:
        raise UnsupportedError("method miss with init_weights bat over quantised layers.")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        if is_bat:
            return MissBatLinear(base_layer, name, workload.rank)
        return MissLinear(base_layer, name, workload.rank, p, mini_r)

    tune(model, workload, make)
    return model
