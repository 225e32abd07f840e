from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP16, FP32, DType
from memplan.engine.autograd import backward
from memplan.engine.tensor import empty
from memplan.errors import ConfigError
from memplan.optimizers import GradScaler
from memplan.optimizers.adamw import AdamW, AdamWForeach, AdamWFused
from tests.optimizers.steps import events_of, parameter, sizes

SCALE, GROWTH_TRACKER, STATES, ROOT = 4, 4, [40, 40], 40
FUSED_STATES = [4, 40, 40]
INVERSE, FOUND_INF, COPIES = [8, 8, 4], [4], [4, 4]


def step(kind: type[AdamW], dtype: DType = FP32, *, unscales: bool = False) -> list[int]:
    """What a scaled step allocates after the loss has been scaled. [bytes]"""

    def body() -> None:
        p = parameter((10,), dtype)
        p.grad = empty(p.shape, dtype)
        optimizer, scaler = kind([p]), GradScaler()
        scaler.scale(empty((), FP32))
        if unscales:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    return sizes(events_of(body))[6:]


def test_the_scale_is_made_with_the_first_loss_and_stays() -> None:
    def body() -> None:
        scaler = GradScaler()
        scaler.scale(empty((), FP32))
        scaler.scale(empty((), FP32))

    loss = scaled = 4
    assert sizes(events_of(body)) == [loss, SCALE, GROWTH_TRACKER, scaled, loss, scaled]


def test_the_scaled_losss_gradient_is_a_product() -> None:
    def body() -> None:
        leaf = parameter((), FP32)
        backward(GradScaler().scale(leaf))

    leaf = scaled = root = product = 4
    assert sizes(events_of(body)) == [leaf, SCALE, GROWTH_TRACKER, scaled, root, product]


@pytest.mark.parametrize("unscales", [False, True])
def test_foreach_unscales_before_its_step(unscales: bool) -> None:
    expected = [*INVERSE, *FOUND_INF, *COPIES, *STATES, ROOT]
    assert step(AdamWForeach, unscales=unscales) == expected


def test_fused_takes_the_scale_into_its_step() -> None:
    dummies, sum_of_found, grad_scale = [4, 4], 4, 4
    expected = [*dummies, *COPIES, sum_of_found, grad_scale, *FUSED_STATES]
    assert step(AdamWFused) == expected


def test_fused_needs_no_scale_for_unscaled_gradients() -> None:
    sum_of_found = 4
    expected = [*INVERSE, *FOUND_INF, *COPIES, sum_of_found, *FUSED_STATES]
    assert step(AdamWFused, unscales=True) == expected


@pytest.mark.parametrize(("kind", "unscales"), [(AdamWForeach, False), (AdamWFused, True)])
def test_unscaling_fp16_gradients_is_refused(kind: type[AdamW], unscales: bool) -> None:
    with pytest.raises(ConfigError, match="FP16 gradients"):
        step(kind, FP16, unscales=unscales)


def test_fused_alone_takes_fp16_gradients() -> None:
    assert step(AdamWFused, FP16)[-1] == 20


def test_bf16_gradients_are_refused() -> None:
    with pytest.raises(ConfigError, match="BFloat16"):
        step(AdamWFused, BF16)


def test_unscaling_without_an_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_grad_norm"):
        GradScaler().unscale_(None)
