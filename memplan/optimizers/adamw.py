"""``torch.optim.AdamW`` in its three implementations: fused, foreach (CUDA's default), for-loop.

All keep two moments in the parameter's dtype. They differ in the step: the fused kernel borrows
nothing, foreach makes the square roots of a whole dtype at once, the loop those of one parameter.

Source:
    pytorch/pytorch v2.14.1 ``torch/optim/adam.py``, which ``torch/optim/adamw.py`` subclasses.
"""

from __future__ import annotations

from abc import abstractmethod

from memplan.dtypes import FP32
from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.base import Optimizer, by_dtype, in_layers


class AdamW(Optimizer):
    """What the implementations share: all states are made before any parameter is updated."""

    def step(self) -> None:
        """``Adam.step``: ``_init_group``, then the implementation."""
        params = self.with_gradient()
        for p in in_layers(params):
            if p not in self.state:
                self.state[p] = self.new_state(p)
        self.update(params)

    def new_state(self, p: Tensor) -> tuple[Tensor, ...]:
        """``exp_avg`` and ``exp_avg_sq``; ``step`` is a tensor on the host."""
        exp_avg = empty(p.shape, p.dtype)
        return exp_avg, empty(p.shape, p.dtype)

    @abstractmethod
    def update(self, params: list[Tensor]) -> None:
        """One update of parameters whose state is there."""


class AdamWFused(AdamW):
    """``fused=True``: one kernel for all, in place; ``step`` lives on the device."""

    takes_scale = True

    def new_state(self, p: Tensor) -> tuple[Tensor, ...]:
        """``step``, then the two moments."""
        return empty((), FP32), *super().new_state(p)

    def update(self, params: list[Tensor]) -> None:
        """``_fused_adam``: every function that it calls works in place."""


class AdamWForeach(AdamW):
    """``foreach=True``, and the default on CUDA."""

    def update(self, params: list[Tensor]) -> None:
        """``_multi_tensor_adam``: one list of square roots a dtype.

        The name ``exp_avg_sq_sqrt`` keeps one dtype's list until the next one's has been made.
        """
        exp_avg_sq_sqrt: list[Tensor] = []
        for group in by_dtype(params):
            exp_avg_sq_sqrt = [empty(p.shape, p.dtype) for p in in_layers(group)]
        del exp_avg_sq_sqrt


class AdamWLoop(AdamW):
    """``foreach=False``: one parameter after the other."""

    def update(self, params: list[Tensor]) -> None:
        """``_single_tensor_adam``: a root, and its quotient with a number, named ``denom``.

        The name ``denom`` keeps one parameter's until the next one's has been made.
        """
        denom = None
        for p in in_layers(params):
            root = empty(p.shape, p.dtype)
            quotient = empty(p.shape, p.dtype)
            del root
            denom = quotient
            del quotient
        del denom
