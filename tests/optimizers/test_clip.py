from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.tensor import empty
from memplan.optimizers import clip_grad_norm
from tests.optimizers.steps import events_of, parameter, sizes

CHUNK = 65536


def allocated_by_clipping(*shapes: tuple[int, DType], copies: int = 1) -> list[int]:
    def body() -> None:
        params = [parameter((n,), dtype) for n, dtype in shapes]
        for p in params:
            p.copies = copies
            p.grad = empty(p.shape, p.dtype)
        clip_grad_norm(params)

    return sizes(events_of(body))[2 * len(shapes) :]


def test_every_gradient_has_partial_norms_for_the_largest_ones_chunks() -> None:
    partial, norms, stacked, total = 2 * 2 * 4, [4, 4], 2 * 4, 4
    factor = [4, 4, 4, 4]  # + 1e-6, reciprocal, times max_norm, clamp
    allocated = allocated_by_clipping((CHUNK + 1, FP32), (3, FP32))
    assert allocated == [partial, *norms, stacked, total, *factor]


def test_norms_have_the_gradients_dtype_and_partial_norms_fp32() -> None:
    assert allocated_by_clipping((CHUNK, BF16)) == [4, 2, 2, 2, 2, 2, 2, 2]


def test_two_16_bit_dtypes_meet_in_fp32() -> None:
    bf16, fp16 = [4, 2], [4, 2]
    assert allocated_by_clipping((9, FP16), (9, BF16)) == [*bf16, *fp16, 2 * 4, 4, 4, 4, 4, 4]


def test_nothing_happens_without_gradients() -> None:
    assert events_of(lambda: clip_grad_norm([])) == []


def test_a_parameter_counts_as_often_as_its_layer_is_repeated() -> None:
    partial, norm, stacked = 3 * 4, 4, 3 * 4
    assert allocated_by_clipping((9, FP32), copies=3)[:3] == [partial, norm, stacked]
