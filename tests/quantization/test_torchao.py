from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.nn import Linear
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, empty
from memplan.errors import ConfigError
from memplan.quantization.torchao import Float8Linear, Int8Linear, TorchaoLinear
from tests.quantization.harness import allocations, live, recorded

N, K = 96, 128


def layer_of(
    kind: type[TorchaoLinear], dtype: DType = BF16, group: int | None = None, bias: bool = False
) -> TorchaoLinear:
    S.meta = True
    plain = Linear(K, N, dtype, bias=bias)
    S.meta = False
    layer: TorchaoLinear = kind(plain, group)  # type: ignore[call-arg]
    layer.load_weight()
    if layer.bias is not None:
        layer.bias = empty((N,), dtype)
    return layer


def forward(layer: TorchaoLinear, dtype: DType = BF16, grad: bool = True) -> Tensor:
    x = empty((1, 10, K), dtype)
    x.requires_grad = grad
    out: Tensor = layer(x)
    return out


@pytest.mark.parametrize(("group", "scales"), [(None, N), (32, N * K // 32)])
def test_int8_leaves_a_byte_a_weight_and_a_scale_and_a_zero_point_a_group(
    group: int | None, scales: int
) -> None:
    tape, layer = recorded(lambda: layer_of(Int8Linear, group=group))
    assert sorted(live(tape)) == sorted([N * K, 4 * scales, scales])
    assert layer.wrapped_bytes == 5 * scales


@pytest.mark.parametrize(("group", "scales"), [(None, N), (64, N * K // 64)])
def test_fp8_leaves_a_byte_a_weight_and_a_scale_a_group(group: int | None, scales: int) -> None:
    tape, layer = recorded(lambda: layer_of(Float8Linear, group=group))
    assert sorted(live(tape)) == sorted([N * K, 4 * scales])
    assert layer.wrapped_bytes == 4 * scales


def test_fp32_weights_need_no_second_scales() -> None:
    tape, _ = recorded(lambda: layer_of(Float8Linear, FP32))
    assert allocations(tape) == [4 * N * K, 4 * N * K, 4 * N, 4 * N, 4 * N * K, 4 * N * K, N * K]


@pytest.mark.parametrize("kind", [Int8Linear, Float8Linear])
def test_the_dequantised_weight_is_saved_for_backward(kind: type[TorchaoLinear]) -> None:
    def act() -> tuple[Tensor, Tensor]:
        layer = layer_of(kind)
        return forward(layer), forward(layer, grad=False)

    tape, (out, frozen) = recorded(act)
    copies = [size for size in live(tape) if size == 2 * N * K]
    assert out.requires_grad
    assert not frozen.requires_grad
    assert len(copies) == 1


def test_a_dequantised_float8_weight_passes_through_fp32_twice() -> None:
    tape, _ = recorded(lambda: forward(layer_of(Float8Linear), grad=False))
    assert allocations(tape)[-5:-2] == [4 * N * K, 4 * N * K, 2 * N * K]  # then y, a workspace


def test_a_bias_is_written_into_a_view_of_the_scaled_product() -> None:
    def act() -> int:
        out = forward(layer_of(Int8Linear, bias=True))
        assert out.node is not None
        start = len(S.tape.events)
        zeros = out.node.backward(empty(out.shape, BF16))  # as_strided
        below = out.node.edges[0]
        assert below is not None
        below.backward(zeros[0])  # CopySlices
        return start

    tape, start = recorded(act)
    y = 2 * 10 * N
    assert [e for e in tape.events[start:] if e > 0] == [y, y, y, y]  # grad, zeros, result, clone


def test_an_fp16_input_is_multiplied_in_fp16() -> None:
    _, out = recorded(lambda: forward(layer_of(Int8Linear, BF16), FP16))
    assert out.dtype is FP16


def test_a_group_size_that_does_not_divide_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="128 in_features are no multiple of the group size 48"):
        recorded(lambda: layer_of(Int8Linear, group=48))
