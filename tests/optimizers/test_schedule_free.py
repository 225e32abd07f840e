from __future__ import annotations

from memplan.dtypes import BF16
from memplan.estimate import estimate
from memplan.optimizers.schedule_free import (
    RECTIFIED_FROM,
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
)
from tests.optimizers.steps import allocated_in_steps

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
A, B = 10 * 2, 20 * 2
SHAPES = [(10,), (20,)]


def test_sgd_keeps_a_second_copy_of_the_weights() -> None:
    assert allocated_in_steps(ScheduleFreeSGD, 3, SHAPES, BF16) == [A, B]


def test_adamw_keeps_squares_too_and_borrows_their_roots() -> None:
    states = [A, A, B, B]
    assert allocated_in_steps(ScheduleFreeAdamW, 2, SHAPES, BF16) == [*states, A, B, A, B]


def test_radam_borrows_nothing_before_it_trusts_the_variance() -> None:
    states = [A, A, B, B]
    assert allocated_in_steps(ScheduleFreeRAdam, RECTIFIED_FROM - 1, SHAPES, BF16) == states
    later = allocated_in_steps(ScheduleFreeRAdam, RECTIFIED_FROM + 1, SHAPES, BF16)
    assert later == [*states, A, B, A, B]


def test_a_long_run_of_radam_borrows_what_its_later_steps_do() -> None:
    def step_peak(steps: int) -> int:
        e = estimate(model=SMALL, optimizer="schedule_free_radam", seq_len=8, steps=steps)
        return e.phases["optimizer_step"].peak_requested_bytes

    assert step_peak(40) == step_peak(RECTIFIED_FROM + 1) == step_peak(RECTIFIED_FROM)
    assert step_peak(RECTIFIED_FROM) > step_peak(RECTIFIED_FROM - 1) == step_peak(3)
