"""``torch.optim.SGD`` without weight decay, in its default implementation on CUDA, foreach.

Source:
    pytorch/pytorch v2.14.1 ``torch/optim/sgd.py`` ``_multi_tensor_sgd``.
"""

from __future__ import annotations

from memplan.engine.tensor import empty
from memplan.optimizers.base import Optimizer, by_dtype, in_layers


class SGD(Optimizer):
    """``momentum=0``: ``_foreach_add_`` alone, which borrows and keeps nothing."""

    def step(self) -> None:
        """Nothing is allocated."""


class SGDMomentum(Optimizer):
    """``momentum=0.9``."""

    def step(self) -> None:
        """The first gradient of a parameter is cloned into its ``momentum_buffer``."""
        for group in by_dtype(self.with_gradient()):
            for p in in_layers(group):
                if p not in self.state:
                    self.state[p] = (empty(p.shape, p.dtype),)
