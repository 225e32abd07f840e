"""The Trainer's evaluation after the last step of an epoch.

Losses, and if metrics are wanted logits and labels, stay on the device until
``eval_accumulation_steps`` batches have been seen or all; each batch's are joined to those before
it, so that the old ones, the new ones and the joined ones stand at once. The logits are those that
the model returned: under autocast in fp32.

Source: huggingface/transformers v5.18.0 trainer.py ``evaluation_loop``, ``prediction_step``,
trainer_pt_utils.py ``EvalLoopContainer``; huggingface/accelerate v1.15.0 utils/operations.py
``pad_across_processes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.dtypes import FP32, INT64
from memplan.engine import S, Tensor, alias, empty, evaluation
from memplan.engine.ops.pointwise import cat
from memplan.training.batches import Batch, Batches, count_items
from memplan.workload import Workload

ComputeLoss = Callable[[Batch, Tensor], tuple[Tensor, Any]]
Prediction = tuple[Tensor, Tensor | None, Tensor | None]


class Container:
    """``EvalLoopContainer``: what was gathered since it last went to the host."""

    def __init__(self) -> None:
        self.tensors: Tensor | None = None

    def add(self, tensors: Tensor) -> None:
        """Join a batch's tensors to those before it."""
        self.tensors = tensors if self.tensors is None else cat(self.tensors, tensors, 0)

    def to_cpu_and_numpy(self) -> None:
        """They go to the host."""
        self.tensors = None


def evaluate(workload: Workload, compute_loss: ComputeLoss) -> None:
    """``Trainer.evaluate``.

    Args:
        workload: It says how many batches, and what is wanted of them.
        compute_loss: The loss and the outputs of a batch with so many tokens.
    """
    with evaluation():
        evaluation_loop(workload, compute_loss)


def evaluation_loop(workload: Workload, compute_loss: ComputeLoss) -> None:
    """Batch after batch; variables live on into the next one, unless they are deleted."""
    dataloader = Batches(workload, workload.eval_micro_batch_size)
    all_losses, all_preds, all_labels = containers = Container(), Container(), Container()
    is_loss_only = workload.eval == "loss"
    losses = logits = labels = inputs = None
    for step in range(workload.eval_batches):
        inputs = dataloader.next_batch()
        losses, logits, labels = prediction_step(inputs, compute_loss, is_loss_only)
        losses = empty((workload.eval_micro_batch_size,), FP32)  # losses.repeat(batch_size)
        all_losses.add(losses)
        if labels is not None:
            ask_for_size(labels)
        if logits is not None:
            ask_for_size(logits)
            all_preds.add(logits)
        if labels is not None:
            all_labels.add(labels)
        if goes_to_host(workload, step):
            for container in containers:
                container.to_cpu_and_numpy()
            losses = logits = labels = None
            S.tape.empty_cache()
    del inputs, losses, logits, labels


def goes_to_host(workload: Workload, step: int) -> bool:
    """Whether ``eval_accumulation_steps`` batches have been seen since the last time."""
    every = workload.eval_accumulation_steps
    return bool(every) and (step + 1) % every == 0


def prediction_step(inputs: Batch, compute_loss: ComputeLoss, is_loss_only: bool) -> Prediction:
    """The loss of a batch; its logits and labels, if they are wanted."""
    num_items_in_batch = count_items([inputs])
    loss, outputs = compute_loss(inputs, num_items_in_batch)
    loss = empty((), FP32)  # loss.detach().mean()
    if is_loss_only:
        return loss, None, None
    logits: Tensor = outputs.logits
    return loss, alias(logits, logits.shape, logits.strides), inputs["labels"]


def ask_for_size(t: Tensor) -> None:
    """``pad_across_processes``: the shape goes to the device and comes back."""
    size = empty((len(t.shape),), INT64)
    del size
