"""``schedulefree``: AdamW, RAdam and SGD, which keep a second copy of the weights.

Their foreach functions take all parameters in one list, whatever their dtypes. Gradients are
normalised in place.

Source:
    facebookresearch/schedule_free v1.4.1 ``schedulefree/adamw_schedulefree.py``,
    ``radam_schedulefree.py``, ``sgd_schedulefree.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.base import Optimizer, in_layers, like

RECTIFIED_FROM = 6
"""First step whose variance is trusted: ``rho_t > 4.0`` with ``beta2 = 0.999``."""


class ScheduleFreeSGD(Optimizer):
    """``SGDScheduleFree``: ``z`` of each parameter; ``y`` is the parameter itself.

    Attributes:
        steps: Steps taken.
    """

    steps = 0

    def step(self) -> None:
        """One group."""
        self.step_groups([self.params])

    def step_groups(self, groups: Iterable[list[Tensor]]) -> None:
        """Of each group the states, then ``denom``, whose name outlives the group."""
        self.steps += 1
        denom: list[Tensor] = []
        for group in groups:
            params = [p for p in group if p.grad is not None]
            for p in in_layers(params):
                if p not in self.state:
                    self.state[p] = self.new_state(p)
            if params and self.has_denom():
                denom = like(params)
        del denom

    def new_state(self, p: Tensor) -> tuple[Tensor, ...]:
        """``z``."""
        return (empty(p.shape, p.dtype),)

    def has_denom(self) -> bool:
        """Everything is done in place."""
        return False


class ScheduleFreeAdamW(ScheduleFreeSGD):
    """``AdamWScheduleFree``."""

    def new_state(self, p: Tensor) -> tuple[Tensor, ...]:
        """``z`` and ``exp_avg_sq``."""
        z = empty(p.shape, p.dtype)
        return z, empty(p.shape, p.dtype)

    def has_denom(self) -> bool:
        """Roots of the second moments."""
        return True


class ScheduleFreeRAdam(ScheduleFreeAdamW):
    """``RAdamScheduleFree``: plain descent until the variance can be trusted."""

    def has_denom(self) -> bool:
        """From the sixth step on."""
        return self.steps >= RECTIFIED_FROM
