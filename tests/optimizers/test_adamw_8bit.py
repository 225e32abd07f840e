from __future__ import annotations

from memplan.dtypes import BF16, FP32, DType
from memplan.engine.tensor import empty
from memplan.optimizers.adamw_8bit import AdamW8bit, PagedAdamW8bit
from tests.optimizers.steps import events_of, parameter, sizes

QMAP = 256 * 4


def allocated_by(kind: type[AdamW8bit], *numels: int, dtype: DType = BF16) -> list[int]:
    """What two steps allocate, parameters and gradients left out. [bytes]"""

    def body() -> None:
        params = [parameter((n,), dtype) for n in numels]
        for p in params:
            p.grad = empty(p.shape, p.dtype)
        optimizer = kind(params)
        optimizer.step()
        optimizer.step()

    return sizes(events_of(body))[2 * len(numels) :]


def test_a_small_parameter_has_two_fp32_states_and_no_maps() -> None:
    assert allocated_by(AdamW8bit, 4095) == [4095 * 4] * 2


def test_a_larger_one_has_a_byte_an_element_and_a_maximum_for_256() -> None:
    maxima = (5000 // 256 + 1) * 4
    assert allocated_by(AdamW8bit, 5000) == [QMAP, QMAP, 5000, 5000, maxima, maxima]


def test_the_maps_are_made_once() -> None:
    assert allocated_by(AdamW8bit, 4096, 8192).count(QMAP) == 2


def test_states_do_not_depend_on_the_dtype_of_the_parameter() -> None:
    assert allocated_by(AdamW8bit, 100, 5000, dtype=FP32) == allocated_by(AdamW8bit, 100, 5000)


def test_large_paged_states_are_not_in_torchs_allocator_but_their_maxima_are() -> None:
    maxima = -(-100_000 // 256) * 4
    assert allocated_by(PagedAdamW8bit, 100_000) == [QMAP, QMAP, maxima, maxima]
    assert allocated_by(PagedAdamW8bit, 99_999) == allocated_by(AdamW8bit, 99_999)
