"""Losses."""

from __future__ import annotations

from memplan.engine.autograd import Node, attach, needs_grad
from memplan.engine.tensor import Tensor, empty


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """``cross_entropy_loss``:

    ``_log_softmax`` saves its result; ``nll_loss_forward`` makes output and total_weight, and
    saves self, target, total_weight. Backward: one tensor of the logits' size each.

    Source: pytorch/pytorch v2.14.1 derivatives.yaml ``_log_softmax``, ``nll_loss_forward``.
    """
    shape, dtype = logits.shape, logits.dtype
    needs = needs_grad(logits)
    logp = empty(shape, dtype)
    if needs:
        attach(logp, (logits,), (logp,), lambda grad: (empty(shape, dtype),))
        node = Node((logp,), (logp, target), lambda grad: (empty(shape, dtype),))
    out, total_weight = empty((), dtype), empty((), dtype)
    return node.finish(out, (total_weight,)) if needs else out
