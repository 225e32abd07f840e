from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP32
from memplan.engine.autograd import backward
from memplan.engine.kernels import Kernels
from memplan.engine.nn import Linear, Module
from memplan.engine.tensor import Tensor, empty
from memplan.errors import ConfigError
from memplan.optimizers import OPTIMIZERS, GradScaler, Optimizer
from memplan.optimizers.apollo import APOLLOAdamW
from tests.optimizers.steps import allocated_in_steps, events_of, sizes

RANK = 8
NUMBER = 4
FULL, LOW = 30 * 40 * 4, RANK * 40 * 4
PROJECTION = 30 * RANK * 4
CHANNELS = 40 * 4
MOMENTS = [LOW, LOW]
FACTOR = [CHANNELS] * 4  # both norms, plus eps, their quotient
FIRST = [LOW, *MOMENTS, LOW, LOW, *FACTOR, FULL, NUMBER]
LATER = [LOW, LOW, LOW, *FACTOR, FULL, NUMBER]
LIMITER = [NUMBER, NUMBER, 1, NUMBER, FULL, NUMBER]


def build(params: list[Tensor]) -> Optimizer | None:
    return OPTIMIZERS["apollo_adamw"](params, rank=RANK)


def test_moments_are_of_the_projection_onto_the_shorter_side() -> None:
    expected = [PROJECTION, PROJECTION, *FIRST, *LATER, *LIMITER]
    assert allocated_in_steps(build, 2, [(30, 40)], FP32) == expected


def test_a_16_bit_gradient_is_copied_up_for_its_projection() -> None:
    copy = FULL
    made = [copy, PROJECTION, PROJECTION, PROJECTION // 2]
    assert allocated_in_steps(build, 1, [(30, 40)], BF16)[:4] == made


def test_a_vector_has_adam_s_moments_and_comes_first() -> None:
    adam = [50 * 4] * 4
    both = allocated_in_steps(build, 1, [(30, 40), (50,)], FP32)
    assert both == [*adam, PROJECTION, PROJECTION, *FIRST]


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="No target modules"):
        allocated_in_steps(APOLLOAdamW, 1, [(50,)], FP32)


class Model(Module):
    def __init__(self) -> None:
        self.proj = Linear(40, 30, FP32)


def test_layer_by_layer_a_gradient_goes_as_soon_as_it_is_there() -> None:
    def body() -> None:
        model = Model()
        optimizer = OPTIMIZERS["apollo_adamw_layerwise"](list(model.parameters()), rank=RANK)
        assert optimizer is not None
        optimizer.look_into(model)
        x = empty((1, 40), FP32)
        backward(model.proj(x))
        assert model.proj.weight.grad is None
        optimizer.step()

    weight, x, y, root, gradient = FULL, 40 * 4, 30 * 4, 30 * 4, FULL
    expected = [weight, x, y, root, gradient, PROJECTION, PROJECTION, *FIRST]
    workspace = Kernels().cublas_workspace_bytes
    assert [e for e in sizes(events_of(body)) if e != workspace] == expected


def test_a_grad_scaler_sees_no_gradient_where_none_is_left() -> None:
    optimizer = OPTIMIZERS["apollo_adamw_layerwise"]([])
    assert optimizer is not None
    with pytest.raises(ConfigError, match="No inf checks"):
        GradScaler().step(optimizer)
