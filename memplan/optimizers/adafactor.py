"""``transformers.optimization.Adafactor`` as the Trainer makes it: no first moment.

Of a matrix the second moment is kept as a row and a column. One parameter is updated after the
other, in fp32; what the step's names hold of one lives until the next one's has been made.

Source:
    huggingface/transformers v5.18.0 ``optimization.py`` ``Adafactor.step``;
    ``trainer_optimizer.py`` ``_get_adafactor``.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.dtypes import FP32
from memplan.engine.ops.pointwise import binary, unary
from memplan.engine.tensor import Shape, Tensor, empty
from memplan.optimizers.base import Optimizer, in_layers
from memplan.optimizers.norm import mean_over, norm


class Adafactor(Optimizer):
    """``scale_parameter=False, relative_step=False``.

    Attributes:
        rms: ``RMS`` of each parameter, a number on the device, replaced in each step.
    """

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params)
        self.rms: dict[Tensor, Tensor] = {}

    def step(self) -> None:
        """One group."""
        self.step_groups([self.params])

    def step_groups(self, groups: Iterable[list[Tensor]]) -> None:
        """The statements of ``step``; its names outlive a group."""
        grad = p_data_fp32 = update = None
        params = [p for group in groups for p in group if p.grad is not None]
        for p in in_layers(params):
            grad = p.grad
            assert grad is not None
            if grad.dtype is not FP32:
                grad = unary(grad, FP32)
            if p not in self.state:
                self.state[p] = new_state(grad.shape)
            p_data_fp32 = p
            if p.dtype is not FP32:
                p_data_fp32 = unary(p, FP32)
            self.rms[p] = root_mean_square(p_data_fp32)
            update = unary(unary(grad))  # grad**2 + eps
            is_factored = len(grad.shape) >= 2  # else rsqrt of exp_avg_sq
            update = factored(self.state[p], update) if is_factored else unary(update)
            clip(update)
            unary(update)  # -update
        del grad, p_data_fp32, update


def new_state(shape: Shape) -> tuple[Tensor, ...]:
    """``exp_avg_sq_row`` and ``exp_avg_sq_col``, or ``exp_avg_sq`` of a vector."""
    if len(shape) < 2:
        return (empty(shape, FP32),)
    row = empty(shape[:-1], FP32)
    return row, empty((*shape[:-2], shape[-1]), FP32)


def root_mean_square(tensor: Tensor) -> Tensor:
    """``_rms``: the norm, and its quotient with a number."""
    return unary(norm(tensor))


def factored(state: tuple[Tensor, ...], update: Tensor) -> Tensor:
    """Both means of the squares, then ``_approx_sq_grad``: the factors and their product."""
    row, column = state
    mean_over(update, -1)
    mean_over(update, -2)
    mean = mean_over(row, -1)
    r_factor = binary(row, row)
    del mean
    c_factor = unary(column)
    out = empty(update.shape, FP32)
    del r_factor, c_factor
    return out


def clip(update: Tensor) -> None:
    """``update.div_((_rms(update) / clip_threshold).clamp_(min=1.0))``."""
    unary(root_mean_square(update))
