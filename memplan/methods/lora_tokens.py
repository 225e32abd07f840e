"""``trainable_token_indices`` of LoRA: rows of the embeddings that train beside the adapter.

Source: huggingface/peft v0.21.2 peft/utils/other.py ``set_additional_trainable_modules``,
``TrainableTokensWrapper``.
"""

from __future__ import annotations

from typing import Any

from memplan import checks
from memplan.engine.nn import Embedding, Linear
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.trainable_tokens import TiedTokensLayer, TrainableTokensLayer
from memplan.workload import Workload

KEY = "peft_config: trainable_token_indices"


def train_tokens(model: Any, workload: Workload) -> TrainableTokensLayer | None:
    """Wrap the embeddings, and a tied head, if tokens are given.

    Raises:
        ConfigError: They are no tokens of the model, or the embeddings are trained in full.
        UnsupportedError: They are of other modules, or of embeddings that are adapted.
    """
    given = workload.peft_config.get("trainable_token_indices")
    if given is None:
        return None
    if "embed_tokens" in workload.modules_to_save:
        raise ConfigError(f"{KEY}: modules_to_save trains embed_tokens in full; give one of them.")
    table, head = model.model.embed_tokens, model.lm_head
    is_plain = type(table) is Embedding and type(head) is Linear
    is_tied = is_plain and head.weight is table.weight
    if not isinstance(given, (list, tuple)) or type(table) is not Embedding:
        raise UnsupportedError(
            f"{KEY}: a list of tokens is modelled, of embeddings that are not adapted or saved."
        )
    if not is_plain and model.config.tie_word_embeddings:
        raise UnsupportedError(f"{KEY}: with an adapted head that is tied it is not modelled.")
    count = len(checked_tokens(given, model.config.vocab_size))
    layer = TrainableTokensLayer(table, count)
    layer.update_layer(False)
    model.model.embed_tokens = layer
    if is_tied:
        model.lm_head = TiedTokensLayer(head, layer)
    return layer


def checked_tokens(given: Any, vocab_size: int) -> list[int]:
    """The tokens by their numbers.

    Raises:
        ConfigError: There is none, or one that the model has not.
    """
    if not given:
        raise ConfigError(f"{KEY}: the list is empty; name the tokens that train.")
    why = f"the vocabulary has {vocab_size}"
    return [checks.integer(i, KEY, minimum=0, maximum=vocab_size - 1, why=why) for i in given]
