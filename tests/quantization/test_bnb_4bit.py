from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.kernels import Kernels
from memplan.engine.nn import Linear
from memplan.engine.state import S
from memplan.engine.tape import Tape
from memplan.engine.tensor import Tensor, empty
from memplan.quantization.bnb_4bit import CodeCache, Linear4bit
from memplan.quantization.gemm_4bit import uses_fused_kernel
from tests.quantization.harness import allocations, live, recorded

A100, A10G, L4, H100, T4 = (
    Kernels(capability, sms)
    for capability, sms in (((8, 0), 108), ((8, 6), 80), ((8, 9), 58), ((9, 0), 132), ((7, 5), 40))
)


def layer_of(n_in: int, n_out: int, dtype: DType, codes: CodeCache | None = None) -> Linear4bit:
    S.meta = True
    plain = Linear(n_in, n_out, dtype)
    S.meta = False
    layer = Linear4bit(plain, codes)
    layer.load_weight()
    return layer


def forward(layer: Linear4bit, rows: int, dtype: DType, requires_grad: bool) -> Tensor:
    x = empty((1, rows, layer.in_features), dtype)
    x.requires_grad = requires_grad
    out: Tensor = layer(x)
    return out


def test_a_weight_leaves_nibbles_one_absmax_a_block_and_a_code() -> None:
    tape, _ = recorded(lambda: layer_of(128, 96, BF16))
    n = 128 * 96
    assert allocations(tape) == [2 * n, 4 * n // 64, n // 2, 64, 64, 4]
    assert live(tape) == [4 * n // 64, n // 2, 64]


def test_an_odd_weight_rounds_blocks_and_nibbles_up() -> None:
    tape, _ = recorded(lambda: layer_of(65, 3, FP32))
    assert live(tape) == [4 * 4, 98, 64]


def test_double_quantisation_keeps_bytes_for_absmax_and_makes_the_dynamic_code_once() -> None:
    codes = CodeCache()
    tape, _ = recorded(lambda: [layer_of(128, 96, BF16, codes) for _ in range(2)])
    blocks = 128 * 96 // 64
    nested = [4, 4, blocks, 1024]  # offset, absmax of the absmax, bytes, its code
    first = [128 * 96 // 2, 64, 4, 1024, 4, blocks, 1024]
    second = [128 * 96 // 2, 64, *nested]
    assert live(tape) == first + second


def test_the_fused_kernel_makes_its_output_only() -> None:
    def act() -> Tensor:
        return forward(layer_of(128, 96, BF16), 4, BF16, requires_grad=True)

    tape, _ = recorded(act)
    assert allocations(tape)[-1] == 4 * 96 * 2


def test_otherwise_the_whole_weight_is_borrowed_in_both_directions() -> None:
    def act() -> Tape:
        out = forward(layer_of(100, 96, BF16), 4, BF16, requires_grad=True)
        assert out.node is not None
        node = out.node
        start = len(S.tape.events)
        node.backward(empty(out.shape, BF16))
        tape = Tape()
        tape.events = S.tape.events[start:]
        return tape

    tape, backward = recorded(act)
    weight = 100 * 96 * 2
    assert allocations(tape).count(weight) == 3  # loaded, forward, backward
    assert allocations(backward)[1:3] == [weight, 4 * 100 * 2]


def test_nothing_is_saved_for_backward() -> None:
    _, out = recorded(lambda: forward(layer_of(128, 96, BF16), 2000, BF16, requires_grad=True))
    assert not out.node.saved
    assert out.node.context is None


def test_a_bias_follows_the_compute_dtype_for_good() -> None:
    def act() -> Linear4bit:
        S.meta = True
        plain = Linear(128, 96, BF16, bias=True)
        S.meta = False
        layer = Linear4bit(plain, None)
        layer.load_weight()
        bias = layer.bias
        assert bias is not None
        bias.storage, bias.dtype = empty((96,), FP32).storage, FP32  # as prepared for training
        forward(layer, 4, FP32, requires_grad=False)
        forward(layer, 4, FP32, requires_grad=False)
        return layer

    tape, layer = recorded(act)
    assert layer.bias is not None
    assert layer.bias.dtype is BF16
    assert allocations(tape).count(96 * 2) == 1


@pytest.mark.parametrize(
    ("m", "n", "k", "dtype", "kernels", "fused"),
    [
        (4, 4096, 4096, FP32, A100, True),  # a few rows: always
        (7, 4096, 4096, FP32, A100, True),
        (8, 4096, 4096, FP32, A100, False),  # fp32 has no tensor core kernel
        (1, 4096, 4100, BF16, A100, False),  # not whole blocks
        (1537, 4096, 512, BF16, A100, False),
        (1536, 1024, 256, BF16, A100, True),  # a short inner dimension, less than a third of a wave
        (512, 1024, 256, BF16, H100, True),
        (513, 1024, 256, BF16, H100, False),
        (128, 14336, 4096, BF16, A10G, True),
        (129, 14336, 4096, BF16, A10G, False),
        (256, 14336, 4096, BF16, L4, True),
        (9, 8, 4096, BF16, T4, False),  # sm_75 has one for fp16 only
        (64, 512, 4096, FP16, T4, True),
    ],
)
def test_which_kernel_multiplies_is_decided_by_sizes_dtype_and_card(
    m: int, n: int, k: int, dtype: DType, kernels: Kernels, fused: bool
) -> None:
    assert uses_fused_kernel(m, n, k, dtype, kernels) is fused
