"""Trainable tokens as PEFT runs it: some rows of the embeddings, trained beside the table.

Each forward copies the whole table to put the rows in, and its gradient is a whole table, too.

Source: huggingface/peft v0.21.2 peft/tuners/trainable_tokens/layer.py, model.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from memplan import checks
from memplan.dtypes import BF16, FP16, FP32, INT64
from memplan.engine import Tensor, empty
from memplan.engine.nn import Embedding, Linear, Module, parameter
from memplan.engine.ops import embedding as embedding_op
from memplan.engine.ops.indexing import index_copy
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import clone
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.full import freeze_all
from memplan.methods.wrapping import cast_parameter
from memplan.workload import Workload


class TrainableTokensLayer(Module):
    """``TrainableTokensLayer``: the trained rows, and what they were.

    Attributes:
        original: The rows as they were, a buffer that no checkpoint holds.
    """

    trainable_tokens_delta: Tensor
    original: tuple[Tensor, ...]

    def __init__(self, base_layer: Embedding | Linear, count: int) -> None:
        self.base_layer = base_layer
        self.count = count

    def update_layer(self, is_trained: bool) -> None:
        """The rows are taken out of the table; a graph keeps their numbers if it trained till now.

        Source: pytorch/pytorch v2.14.1 torch/csrc/autograd/python_variable_indexing.cpp
        ``sequenceToVariable``: a list of numbers goes to the table's device.
        """
        weight = self.base_layer.weight
        indices = empty((self.count,), INT64)
        originals = empty((self.count, weight.shape[1]), weight.dtype)
        if not is_trained:
            del indices
        self.trainable_tokens_delta = parameter(originals.shape, originals.dtype)
        self.original = (clone(originals),)

    def merged_weight(self) -> Tensor:
        """``get_merged_weights``: the table with the trained rows."""
        W = self.base_layer.weight
        index = empty((self.count,), INT64)
        deltas = to(self.trainable_tokens_delta, W.dtype)
        W = index_copy(W, index, deltas)
        return W

    def forward(self, x: Tensor) -> Tensor:
        """The base's operator on the table with the trained rows."""
        W = self.merged_weight()
        if isinstance(self.base_layer, Embedding):
            result = embedding_op.embedding(x, W)
        else:
            result = linear(x, W)
        return result


class TiedTokensLayer(TrainableTokensLayer):
    """A layer whose weight is the embeddings': it has no rows of its own."""

    def __init__(self, base_layer: Linear, tied_adapter: TrainableTokensLayer) -> None:
        super().__init__(base_layer, tied_adapter.count)
        self.tied_adapter = (tied_adapter,)

    def merged_weight(self) -> Tensor:
        """A copy of its own, with the rows of the embeddings."""
        return self.tied_adapter[0].merged_weight()


def apply(model: Any, workload: Workload) -> Any:
    """``get_peft_model`` of a ``TrainableTokensConfig``; a tied head gets a layer, too."""
    count = len(token_indices(workload, model.config.vocab_size))
    if workload.target_modules is not None:
        raise UnsupportedError(
            "target_modules: trainable_tokens of other modules than the token embeddings is not "
            "modelled."
        )
    table = model.model.embed_tokens.weight
    is_tied, trains = model.lm_head.weight is table, table.requires_grad
    freeze_all(model)
    layer = TrainableTokensLayer(model.model.embed_tokens, count)
    layer.update_layer(trains)
    model.model.embed_tokens = layer
    if is_tied:
        model.lm_head = TiedTokensLayer(model.lm_head, layer)
    if workload.adapter_dtype == "float32":
        cast_rows(layer)
    return model


def cast_rows(layer: TrainableTokensLayer) -> None:
    """``cast_adapter_dtype``: the rows, then what they were."""
    cast_parameter(layer, "trainable_tokens_delta")
    (old,) = layer.original
    if old.dtype is BF16 or old.dtype is FP16:
        layer.original = (empty(old.shape, FP32),)


def token_indices(workload: Workload, vocab_size: int) -> tuple[int, ...]:
    """The tokens that train.

    Raises:
        ConfigError: None is given, or one that the model has not.
    """
    given = workload.peft_config.get("token_indices")
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(
            "method trainable_tokens: say which tokens train, by their numbers: "
            'peft_config: {"token_indices": [0, 1, 2]}.'
        )
    name = "peft_config: token_indices"
    why = f"the vocabulary has {vocab_size}"
    last = vocab_size - 1
    found = [checks.integer(i, name, minimum=0, maximum=last, why=why) for i in given]
    if not found:
        raise ConfigError(f"{name}: the list is empty; name the tokens that train.")
    return tuple(found)
