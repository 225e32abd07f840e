from __future__ import annotations

from memplan.dtypes import BF16, FP32
from memplan.engine.tensor import empty
from memplan.optimizers.adafactor import Adafactor
from tests.optimizers.steps import allocated_in_steps, events_of, parameter

ROW, COLUMN, FULL, NUMBER = 30 * 4, 40 * 4, 30 * 40 * 4, 4
RMS = [NUMBER, NUMBER]
SQUARES = [FULL, FULL]  # grad**2, then plus eps
MEANS = [ROW, COLUMN]
FACTORS = [NUMBER, ROW, COLUMN, FULL]  # the row's mean, both factors, their product
CLIP = [NUMBER, NUMBER, NUMBER]
MATRIX = [*RMS, *SQUARES, *MEANS, *FACTORS, *CLIP, FULL]


def test_a_matrix_keeps_a_row_and_a_column() -> None:
    assert allocated_in_steps(Adafactor, 2, [(30, 40)], FP32) == [ROW, COLUMN, *MATRIX, *MATRIX]


def test_16_bit_gradients_and_weights_are_copied_up_one_parameter_at_a_time() -> None:
    states = [ROW, COLUMN]
    assert allocated_in_steps(Adafactor, 1, [(30, 40)], BF16) == [FULL, *states, FULL, *MATRIX]


def test_a_vector_keeps_all_its_squares() -> None:
    vector = 50 * 4
    state, squares, root = [vector], [vector, vector], [vector]
    step = [*RMS, *squares, *root, *CLIP, vector]
    assert allocated_in_steps(Adafactor, 1, [(50,)], FP32) == [*state, *step]


def test_names_outlive_a_group_of_parameters() -> None:
    """In one group or in two, the same happens in the same order."""

    def events(groups: int) -> list[int]:
        def body() -> None:
            params = [parameter((30, 40), BF16), parameter((50,), BF16)]
            for p in params:
                p.grad = empty(p.shape, p.dtype)
            Adafactor(params).step_groups([params] if groups == 1 else [[p] for p in params])

        return events_of(body)

    assert events(1) == events(2)
