from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP32, DType
from memplan.errors import ConfigError
from memplan.optimizers import OPTIMIZERS
from tests.optimizers.steps import allocated_in_steps

QMAP = 256 * 4
MAXIMA = -(-5000 // 256) * 4
LARGE = 100_000
LARGE_MAXIMA = -(-LARGE // 256) * 4


def allocated_by(name: str, *numels: int, dtype: DType = BF16, **arguments: int) -> list[int]:
    """What two steps allocate, parameters and gradients left out. [bytes]"""
    shapes = [(n,) for n in numels]
    return allocated_in_steps(lambda p: OPTIMIZERS[name](p, **arguments), 2, shapes, dtype)


def test_a_small_parameter_has_two_fp32_states_and_no_maps() -> None:
    assert allocated_by("adamw_8bit", 4095) == [4095 * 4] * 2


def test_a_larger_one_has_a_byte_an_element_and_a_maximum_for_256() -> None:
    assert allocated_by("adamw_8bit", 5000) == [QMAP, QMAP, 5000, 5000, MAXIMA, MAXIMA]


def test_the_maps_are_made_once() -> None:
    assert allocated_by("adamw_8bit", 4096, 8192).count(QMAP) == 2


def test_states_do_not_depend_on_the_dtype_of_the_parameter() -> None:
    other = allocated_by("adamw_8bit", 100, 5000, dtype=FP32)
    assert allocated_by("adamw_8bit", 100, 5000) == other


def test_what_is_small_can_be_said() -> None:
    assert allocated_by("adamw_8bit", 5000, min_8bit_size=5001) == [5000 * 4] * 2
    assert allocated_by("lion_8bit", 16, min_8bit_size=16) == [QMAP, 16, 4]


def test_large_paged_states_are_not_in_torchs_allocator_but_their_maxima_are() -> None:
    large = allocated_by("paged_adamw_8bit", LARGE)
    assert large == [QMAP, QMAP, LARGE_MAXIMA, LARGE_MAXIMA]
    assert allocated_by("paged_adamw_8bit", LARGE - 1) == allocated_by("adamw_8bit", LARGE - 1)


@pytest.mark.parametrize("name", ["paged_adamw_32bit", "paged_lion_32bit", "paged_ademamix_32bit"])
def test_large_paged_fp32_states_leave_nothing(name: str) -> None:
    assert allocated_by(name, LARGE) == []


@pytest.mark.parametrize("name", ["lion", "rmsprop_bnb"])
def test_lion_and_rmsprop_have_one_state(name: str) -> None:
    assert allocated_by(name, 5000, dtype=FP32) == [5000 * 4]


@pytest.mark.parametrize("name", ["lion_8bit", "rmsprop_bnb_8bit"])
def test_in_8_bits_one_state_needs_the_signed_map_alone(name: str) -> None:
    assert allocated_by(name, 5000) == [QMAP, 5000, MAXIMA]


@pytest.mark.parametrize("name", ["rmsprop_bnb", "rmsprop_bnb_8bit"])
def test_rmsprop_refuses_a_small_parameter_in_bfloat16(name: str) -> None:
    with pytest.raises(ConfigError, match="no kernel"):
        allocated_by(name, 100)


def test_ademamix_has_a_double_state_and_makes_the_maxima_first() -> None:
    assert allocated_by("ademamix", 100) == [2 * 100 * 4, 100 * 4]
    states = [2 * 5000, 5000]
    assert allocated_by("ademamix_8bit", 5000) == [QMAP, QMAP, 2 * MAXIMA, MAXIMA, *states]
