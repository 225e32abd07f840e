"""``grokadamw.GrokAdamW``: its states live on the host, and one parameter's at a time on the GPU.

Source:
    cognitivecomputations/grokadamw v0.1.2 ``grokadamw/grokadamw.py``
    ``GrokAdamW._update_group``.
"""

from __future__ import annotations

from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.base import Optimizer, in_layers
from memplan.optimizers.clip import clip_own_norm


class GrokAdamW(Optimizer):
    """Nothing is kept between steps."""

    def step(self) -> None:
        """``_update_group``; names keep one parameter's tensors until the next one's are there."""
        moments: tuple[Tensor, ...] = ()
        grok_ema = grok_grad = None
        for p in in_layers(self.with_gradient()):
            moments = new(p), new(p)  # exp_avg, exp_avg_sq
            grok_ema = new(p)
            clip_own_norm(p)
            grok_grad = self.amplified(p)
            new(p)  # exp_avg_sq.sqrt()
        del moments, grok_ema, grok_grad

    def amplified(self, p: Tensor) -> Tensor:
        """``grad + lamb * grok_ema``."""
        product = new(p)
        out = new(p)
        del product
        return out


def new(p: Tensor) -> Tensor:
    """A tensor like a parameter."""
    return empty(p.shape, p.dtype)
