from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine.tensor import empty
from memplan.optimizers.base import Optimizer
from memplan.optimizers.sgd import SGD, SGDMomentum
from tests.optimizers.steps import events_of, parameter, sizes


def allocated_by(kind: type[Optimizer], *, steps: int) -> list[int]:
    """What the optimizer allocates for three parameters. [bytes]"""

    def body() -> None:
        params = [parameter((n,), d) for n, d in ((10, FP32), (20, BF16), (30, FP16))]
        for p in params:
            p.grad = empty(p.shape, p.dtype)
        optimizer = kind(params)
        for _ in range(steps):
            optimizer.step()

    return sizes(events_of(body))[6:]


def test_plain_sgd_allocates_nothing() -> None:
    assert allocated_by(SGD, steps=2) == []


def test_momentum_clones_each_first_gradient_dtype_by_dtype() -> None:
    assert allocated_by(SGDMomentum, steps=2) == [30 * 2, 20 * 2, 10 * 4]
