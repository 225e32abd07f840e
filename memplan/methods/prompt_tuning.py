"""Prompt tuning as PEFT runs it: trained vectors before the embedded tokens.

Source: huggingface/peft v0.21.2 peft/tuners/prompt_tuning/model.py ``PromptEmbedding``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memplan.dtypes import FP32, INT64
from memplan.engine import Tensor, empty
from memplan.engine.nn import Embedding, Module
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import clone, detach
from memplan.engine.tape import OUTSIDE
from memplan.errors import ConfigError
from memplan.methods.full import freeze_all
from memplan.methods.prompt_learning import PeftModelForCausalLM, PromptEncoder, hidden_size
from memplan.workload import Workload


class PromptEmbedding(PromptEncoder):
    """``PromptEmbedding``."""

    def __init__(self, num_virtual_tokens: int, width: int) -> None:
        self.num_virtual_tokens, self.width = num_virtual_tokens, width

    def move(self) -> None:
        """An embedding made on the host, and moved."""
        self.embedding = Embedding(self.num_virtual_tokens, self.width, FP32)

    def copy_words(self, word_embeddings: Embedding) -> None:
        """As many words as virtual tokens, drawn or from a text, embedded, and cast to fp32.

        A text is cut or repeated until it is as long as the prompt.
        """
        init_token_ids = empty((self.num_virtual_tokens,), INT64)
        word_embedding_weights = clone(detach(word_embeddings(init_token_ids)))
        word_embedding_weights = to(word_embedding_weights, FP32)
        self.embedding = embedding_of(word_embedding_weights)

    def forward(self, indices: Tensor) -> Tensor:
        """indices: (B, V) -> (B, V, hidden_size)."""
        out: Tensor = self.embedding(indices)
        return out


def embedding_of(weight: Tensor) -> Embedding:
    """An embedding whose parameter is this tensor."""
    out = Embedding.__new__(Embedding)
    out.weight, out.output_requires_grad = weight, False
    weight.requires_grad, weight.layer, weight.copies = True, OUTSIDE, 1
    return out


def apply(model: Any, workload: Workload) -> Module:
    """``get_peft_model``: freeze, and put the prompt before the model.

    Raises:
        ConfigError: An initialisation by text without the text, or without a tokenizer.
    """
    freeze_all(model)
    encoder = PromptEmbedding(workload.num_virtual_tokens, hidden_size(model))
    initialization = workload.peft_config.get("prompt_tuning_init") or "RANDOM"
    if initialization == "TEXT":
        check_text(workload.peft_config)
    if initialization == "RANDOM":
        encoder.move()
    else:
        encoder.copy_words(model.model.embed_tokens)
    return PeftModelForCausalLM(model, encoder, workload.num_virtual_tokens)


def check_text(options: Mapping[str, Any]) -> None:
    """What ``PromptTuningConfig`` asks for an initialisation by text.

    Raises:
        ConfigError: One of the two is missing.
    """
    for key in ("tokenizer_name_or_path", "prompt_tuning_init_text"):
        if not options.get(key):
            raise ConfigError(
                f"peft_config: {key}: prompt_tuning_init: TEXT needs it; PEFT refuses without."
            )
