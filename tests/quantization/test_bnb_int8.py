from __future__ import annotations

from memplan.dtypes import BF16, FP16, DType
from memplan.engine.nn import Linear
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, empty
from memplan.quantization.bnb_int8 import Linear8bitLt
from tests.quantization.harness import allocations, live, recorded


def layer_of(n_in: int, n_out: int, dtype: DType = BF16) -> Linear8bitLt:
    S.meta = True
    plain = Linear(n_in, n_out, dtype)
    S.meta = False
    layer = Linear8bitLt(plain)
    layer.load_weight()
    return layer


def forward(layer: Linear8bitLt, rows: int, dtype: DType = BF16, grad: bool = True) -> Tensor:
    x = empty((1, rows, layer.in_features), dtype)
    x.requires_grad = grad
    out: Tensor = layer(x)
    return out


def after_load(sizes: list[int]) -> list[int]:
    """Without the loading of the weight and the input."""
    return sizes[5:]


def test_a_weight_leaves_a_byte_an_element_and_a_scale_a_row() -> None:
    tape, _ = recorded(lambda: layer_of(128, 96))
    n = 128 * 96
    assert allocations(tape) == [2 * n, 2 * n, 4 * 96, n]
    assert live(tape) == [4 * 96, n]


def test_forward_makes_fp16_rows_looks_for_outliers_and_scales_int32_back() -> None:
    tape, _ = recorded(lambda: forward(layer_of(128, 96), 10, grad=False))
    x, out = 10 * 128, 10 * 96
    rows = [2 * x, 4 * 10, x, 2 * x, x, 1, 1]  # fp16, scales, int8, |x|, outliers, any, a zero
    assert after_load(allocations(tape)) == [*rows, 4 * out, 2 * out, 2 * out]


def test_fp16_needs_no_casts_and_one_row_clears_no_columns() -> None:
    tape, _ = recorded(lambda: forward(layer_of(128, 96, FP16), 1, FP16, grad=False))
    assert after_load(allocations(tape)) == [4, 128, 256, 128, 1, 4 * 96, 2 * 96]


def test_rows_that_are_no_multiple_of_4_are_multiplied_in_fp32() -> None:
    tape, _ = recorded(lambda: forward(layer_of(130, 96), 10, grad=False))
    assert 4 * 130 * 96 in allocations(tape)


def test_a_large_look_for_outliers_meets_in_global_memory() -> None:
    # 156,000 elements: 305 for each of 512 threads, so 20 blocks of a byte, and a semaphore
    tape, _ = recorded(lambda: forward(layer_of(520, 96), 300, grad=False))
    assert allocations(tape)[10:13] == [1, 20, 4]


def test_the_context_keeps_the_activation_and_hooks_do_not_see_it() -> None:
    _, out = recorded(lambda: forward(layer_of(128, 96), 10))
    assert not out.node.saved
    assert out.node.context.nbytes == 10 * 128 * 2


def test_backward_dequantises_in_the_activations_dtype() -> None:
    def act() -> int:
        out = forward(layer_of(128, 96), 10)
        assert out.node is not None
        start = len(S.tape.events)
        out.node.backward(empty(out.shape, BF16))
        return start

    tape, start = recorded(act)
    made = [e for e in tape.events[start + 1 :] if e > 0]
    assert made[:3] == [128 * 96 * 2, 4 * 96, 10 * 128 * 2]
