"""Batches as accelerate's data loader hands them out, and the count of what is trained on.

Source: huggingface/accelerate v1.15.0 data_loader.py ``DataLoaderShard``, utils/operations.py
``send_to_device``; huggingface/transformers v5.18.0 data/data_collator.py
``torch_default_data_collator``, trainer.py ``_get_num_items_in_batch``.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.dtypes import BOOL, INT64
from memplan.engine import Tensor, empty, numel
from memplan.engine.reduction import borrow_full
from memplan.workload import Workload

Batch = dict[str, Tensor]


class Batches:
    """The iterator: it keeps the batch that it handed out last.

    It is one batch ahead, but only on the host.
    """

    def __init__(self, workload: Workload, batch_size: int) -> None:
        self.shape = batch_size, workload.seq_len
        self.keys = ["input_ids", "labels"]
        if workload.attention_mask != "none":
            self.keys.append("attention_mask")
        self.current_batch: Batch = {}

    def next_batch(self) -> Batch:
        """The next batch, on the device."""
        self.current_batch = {}
        for key in self.keys:
            self.current_batch[key] = empty(self.shape, INT64)
        return self.current_batch


def count_items(batches: Iterable[Batch]) -> Tensor:
    """``sum(labels[..., 1:].ne(-100).sum() for labels in ...)``: Python's sum starts at 0."""
    total = None
    for batch in batches:
        item = count_valid(batch["labels"])
        total = empty((), INT64)
        del item
    assert total is not None
    return total


def count_valid(labels: Tensor) -> Tensor:
    """``labels[..., 1:].ne(-100).sum()``: the answers are cast before they are added."""
    rows, length = labels.shape
    is_valid = empty((rows, length - 1), BOOL)
    count = empty((), INT64)
    as_int = empty(is_valid.shape, INT64)
    borrow_full(numel(is_valid.shape), INT64.itemsize)
    del as_int
    return count
