"""The causal language model loss. Source: huggingface/transformers v5.18.0 loss/loss_utils.py."""

from __future__ import annotations

from memplan.dtypes import FP32, INT64
from memplan.engine import Tensor, alias, empty
from memplan.engine.ops.arithmetic import div
from memplan.engine.ops.loss import cross_entropy
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import contiguous, view
from memplan.engine.tensor import normal


def causal_lm_loss(
    logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | None = None
) -> Tensor:
    """``ForCausalLMLoss``: logits in fp32 against the labels shifted by one. logits: (B, S, V).

    With a number of items, the loss is a sum that is divided by it.
    """
    B, N, V = logits.shape
    logits = to(logits, FP32)
    labels = empty((B, N + 1), INT64)
    shifted = alias(labels, (B, N), normal((B, N), (N + 1, 1)))  # one row: a view
    shift_labels = contiguous(shifted)
    del shifted
    logits = view(logits, (B * N, V))
    loss = cross_entropy(logits, shift_labels)
    if num_items_in_batch is not None:
        loss = div(loss, num_items_in_batch)
    return loss
