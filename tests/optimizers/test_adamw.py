from __future__ import annotations

from memplan.dtypes import BF16, FP32
from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.adamw import AdamW, AdamWForeach, AdamWFused, AdamWLoop
from tests.optimizers.steps import events_of, parameter, sizes

STEP = 4
MATRIX, VECTOR = 30 * 40 * 4, 50 * 2


def two_parameters() -> list[Tensor]:
    params = [parameter((30, 40), FP32), parameter((50,), BF16)]
    for p in params:
        p.grad = empty(p.shape, p.dtype)
    return params


def allocated_by(kind: type[AdamW], *, steps: int) -> list[int]:
    """What the optimizer allocates, parameters and gradients left out. [bytes]"""

    def body() -> None:
        optimizer = kind(two_parameters())
        for _ in range(steps):
            optimizer.step()

    return sizes(events_of(body))[4:]


def test_fused_makes_a_step_and_two_moments_each_and_borrows_nothing() -> None:
    states = [STEP, MATRIX, MATRIX, STEP, VECTOR, VECTOR]
    assert allocated_by(AdamWFused, steps=2) == states


def test_foreach_makes_all_states_then_the_roots_of_the_last_dtype_first() -> None:
    states = [MATRIX, MATRIX, VECTOR, VECTOR]
    assert allocated_by(AdamWForeach, steps=2) == states + [VECTOR, MATRIX] * 2


def test_loop_makes_a_root_and_a_quotient_for_one_parameter_after_the_other() -> None:
    states = [MATRIX, MATRIX, VECTOR, VECTOR]
    assert allocated_by(AdamWLoop, steps=1) == [*states, MATRIX, MATRIX, VECTOR, VECTOR]


def test_a_loops_denominator_lives_until_the_next_one_is_there() -> None:
    """Parameters 0 and 1, gradients 2 and 3, states 4 to 7; root 8, quotient 9."""

    def body() -> None:
        AdamWLoop(two_parameters()).step()

    events = events_of(body)[8:]
    assert events[:7] == [MATRIX, MATRIX, ~8, VECTOR, VECTOR, ~11, ~9]


def test_a_parameter_without_a_gradient_has_no_state() -> None:
    params: list[Tensor] = []

    def body() -> list[tuple[Tensor, ...]]:
        params.extend(two_parameters())
        params[1].grad = None
        optimizer = AdamWFused(params)
        optimizer.step()
        assert list(optimizer.state) == params[:1]
        params.clear()
        return list(optimizer.state.values())

    assert sizes(events_of(body))[4:] == [STEP, MATRIX, MATRIX]
