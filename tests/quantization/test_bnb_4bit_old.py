from __future__ import annotations

from typing import Any

import pytest

import memplan
from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.nn import Linear
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, empty
from memplan.errors import UnsupportedError
from memplan.quantization.bnb_4bit_old import HalfLinear4bit, OldLinear4bit
from tests.quantization.harness import CONFIG, allocations, recorded

N, K = 96, 128


def layer_of(kind: type[OldLinear4bit] = OldLinear4bit) -> OldLinear4bit:
    S.meta = True
    plain = Linear(K, N, BF16)
    S.meta = False
    layer = kind(plain, None)
    layer.load_weight()
    return layer


def forward(layer: OldLinear4bit, dtype: DType = BF16) -> Tensor:
    x = empty((1, 10, K), dtype)
    x.requires_grad = True
    out: Tensor = layer(x)
    return out


def test_the_context_keeps_the_input_and_hooks_do_not_see_it() -> None:
    _, out = recorded(lambda: forward(layer_of()))
    assert not out.node.saved
    assert out.node.context.nbytes == 2 * 10 * K


def test_it_computes_in_the_dtype_of_the_input() -> None:
    tape, _ = recorded(lambda: forward(layer_of(), FP32))
    assert 4 * N * K in allocations(tape)  # the weight is cast to it


def test_release_0_42_takes_every_weight_for_fp16_and_casts_it_once_more() -> None:
    once, _ = recorded(lambda: forward(layer_of()))
    twice, layer = recorded(lambda: (forward(lay := layer_of(HalfLinear4bit)), lay)[1])
    assert layer.weight_dtype is FP16
    assert allocations(twice).count(2 * N * K) == allocations(once).count(2 * N * K) + 1


def test_an_old_release_needs_more_and_says_that_it_is_modelled() -> None:
    keys: dict[str, Any] = {
        "model": CONFIG,
        "loop": "plain",
        "method": "lora",
        "quantization": "nf4",
    }
    new = memplan.estimate(**keys, seq_len=256)
    old = memplan.estimate(**keys, seq_len=256, versions={"bitsandbytes": "0.42"})
    assert old.peak_requested_bytes > new.peak_requested_bytes
    assert (new.evidence.level, old.evidence.level) == ("exact", "modelled")


def test_another_release_is_refused_with_those_that_are_modelled() -> None:
    with pytest.raises(UnsupportedError, match=r"0\.44 is not modelled; 0\.50\.2, .*0\.43\.1 is"):
        memplan.Workload(model="7b", versions={"bitsandbytes": "0.44"})
