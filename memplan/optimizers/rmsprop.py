"""``torch.optim.RMSprop``, neither centered nor with momentum, and ``torch.optim.Adagrad``.

Both in their default implementation on CUDA, foreach: one average in the parameter's dtype, and a
list of square roots a dtype.

Source:
    pytorch/pytorch v2.14.1 ``torch/optim/rmsprop.py`` ``_multi_tensor_rmsprop``,
    ``torch/optim/adagrad.py`` ``Adagrad.__init__``, ``_multi_tensor_adagrad``.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.base import Optimizer, by_dtype, in_layers, like


class RMSprop(Optimizer):
    """``momentum=0``, ``centered=False``."""

    def step(self) -> None:
        """``square_avg`` of each; then roots, whose name ``avg`` outlives the next dtype's."""
        params = self.with_gradient()
        for p in in_layers(params):
            if p not in self.state:
                self.state[p] = (empty(p.shape, p.dtype),)
        avg: list[Tensor] = []
        for group in by_dtype(params):
            avg = like(group)
        del avg


class Adagrad(Optimizer):
    """Its ``sum`` is made with the optimizer, of parameters without a gradient too.

    So is ``step``, on the host.
    """

    host_scalars = 1

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params)
        for p in in_layers(self.params):
            self.state[p] = (empty(p.shape, p.dtype),)

    def step(self) -> None:
        """Roots ``std`` and scaled gradients ``numerator``, one dtype's until the next one's."""
        std: list[Tensor] = []
        numerator: list[Tensor] = []
        for group in by_dtype(self.with_gradient()):
            std = like(group)
            numerator = like(group)
        del std, numerator
