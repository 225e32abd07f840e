from __future__ import annotations

import pytest

from memplan.dtypes import BF16, DType
from memplan.engine.nn import Linear
from memplan.engine.state import S
from memplan.engine.tape import EMPTY_CACHE
from memplan.engine.tensor import Tensor, empty
from memplan.errors import ConfigError
from memplan.quantization.hqq import HQQLinear
from tests.quantization.harness import allocations, live, recorded

N, K = 96, 128
GROUPS = N * K // 64


def layer_of(n: int = N, k: int = K, dtype: DType = BF16) -> HQQLinear:
    S.meta = True
    plain = Linear(k, n, dtype)
    S.meta = False
    layer = HQQLinear(plain)
    layer.load_weight()
    return layer


def forward(layer: HQQLinear, grad: bool) -> Tensor:
    x = empty((1, 10, K), BF16)
    x.requires_grad = grad
    out: Tensor = layer(x)
    return out


def test_a_weight_leaves_nibbles_and_a_scale_and_a_zero_point_a_group() -> None:
    tape, layer = recorded(layer_of)
    assert live(tape) == [N * K // 2, 2 * GROUPS, 2 * GROUPS]
    assert layer.num_elements == N * K // 2  # what PEFT counts


def test_the_search_is_in_fp16_and_the_cache_is_emptied_around_what_stays() -> None:
    tape, _ = recorded(layer_of)
    assert allocations(tape)[:4] == [2 * N * K, 2 * GROUPS, 2 * GROUPS, 4]
    assert [mark.name for mark in tape.phases] == [EMPTY_CACHE] * 2


def test_the_input_is_saved_and_the_weight_is_not() -> None:
    tape, out = recorded(lambda: forward(layer_of(), grad=True))
    assert [storage.nbytes for storage in out.node.saved] == [2 * 10 * K]
    assert 2 * N * K not in live(tape)


def test_nothing_is_saved_where_nothing_below_trains() -> None:
    _, out = recorded(lambda: forward(layer_of(), grad=False))
    assert not out.requires_grad


def test_dequantising_holds_three_copies_of_the_weight() -> None:
    tape, _ = recorded(lambda: layer_of().dequantized())
    whole, packed = 2 * N * K, N * K // 2
    assert allocations(tape)[-6:] == [whole, packed, packed, packed, whole, whole]


def test_an_odd_number_of_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="no even number of groups of 64"):
        recorded(lambda: layer_of(1, 64))
