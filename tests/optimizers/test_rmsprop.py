from __future__ import annotations

from memplan.dtypes import BF16
from memplan.optimizers.rmsprop import Adagrad, RMSprop
from tests.optimizers.steps import allocated_in_steps

A, B = 10 * 2, 20 * 2


def test_rmsprop_keeps_one_average_and_borrows_roots() -> None:
    assert allocated_in_steps(RMSprop, 2, [(10,), (20,)], BF16) == [A, B, A, B, A, B]


def test_adagrad_makes_its_sums_at_once_and_borrows_roots_and_numerators() -> None:
    step = [A, B, A, B]
    assert allocated_in_steps(Adagrad, 2, [(10,), (20,)], BF16) == [A, B, *step, *step]
