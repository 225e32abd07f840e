"""Prefix tuning as PEFT runs it: trained keys and values before those of every layer.

The prompt of all layers is one tensor. Its parts are copied into a cache, one copy for the keys and
one for the values of each layer; in the layer, those and the tokens' own are copied once more.

Source: huggingface/peft v0.21.2 peft/tuners/prefix_tuning/model.py ``PrefixEncoder``,
peft/peft_model.py ``get_prompt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Embedding, Linear, Module
from memplan.engine.ops.activations import tanh
from memplan.engine.ops.pointwise import cat, to
from memplan.engine.ops.split import split
from memplan.engine.ops.views import narrow, permute, view
from memplan.errors import ConfigError
from memplan.methods.full import freeze_all
from memplan.methods.prompt_learning import PromptEncoder, PromptLearningModel
from memplan.workload import Workload

if TYPE_CHECKING:
    from memplan.models.config import ModelConfig

KEY_AND_VALUE = 2


class PrefixEncoder(PromptEncoder):
    """``PrefixEncoder``: the keys and values themselves."""

    def __init__(self, num_virtual_tokens: int, c: ModelConfig) -> None:
        self.embedding = Embedding(num_virtual_tokens, columns(c), FP32)

    def forward(self, prefix: Tensor) -> Tensor:
        """prefix: (B, V) -> (B, V, L * 2 * KV * D)."""
        past_key_values: Tensor = self.embedding(prefix)
        return past_key_values


class ProjectedPrefixEncoder(PromptEncoder):
    """``PrefixEncoder`` with ``prefix_projection``: a network makes them of a small embedding."""

    def __init__(self, num_virtual_tokens: int, c: ModelConfig, hidden: int) -> None:
        self.embedding = Embedding(num_virtual_tokens, width(c), FP32)
        self.transform = [
            Linear(width(c), hidden, FP32, bias=True),
            Linear(hidden, columns(c), FP32, bias=True),
        ]

    @property
    def saved_shape(self) -> tuple[int, int]:
        """What the network makes."""
        return self.embedding.weight.shape[0], self.transform[1].out_features

    def forward(self, prefix: Tensor) -> Tensor:
        """prefix: (B, V) -> (B, V, L * 2 * KV * D)."""
        prefix_tokens = self.embedding(prefix)
        past_key_values: Tensor = self.transform[1](tanh(self.transform[0](prefix_tokens)))
        return past_key_values


class PrefixTuningModel(PromptLearningModel):
    """``PeftModelForCausalLM`` of ``PREFIX_TUNING``."""

    def __init__(self, base_model: Any, encoder: PromptEncoder, num_virtual_tokens: int) -> None:
        super().__init__(base_model, encoder, num_virtual_tokens)
        self.config: ModelConfig = base_model.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, labels: Tensor
    ) -> Any:
        """The base model on the tokens alone, after the keys and values of the prefix."""
        batch_size = input_ids.shape[0]
        if attention_mask is not None:
            prefix_attention_mask = self.ones(batch_size)  # lives as long as the forward
            attention_mask = cat(prefix_attention_mask, attention_mask, 1)
        past_key_values = self.get_prompt(batch_size)
        return self.base_model(
            input_ids, attention_mask, labels=labels, past_key_values=past_key_values
        )

    def get_prompt(self, batch_size: int) -> Any:
        """A cache of the prefix, which is encoded for the whole batch."""
        c = self.config
        prompt_tokens = self.prompt_tokens(batch_size)
        prompt_tokens = narrow(prompt_tokens, 1, self.num_virtual_tokens)
        past = self.prompt_encoder(prompt_tokens)
        past = to(past, self.base_model.model.embed_tokens.weight.dtype)
        parts = c.num_hidden_layers * KEY_AND_VALUE
        heads = c.num_key_value_heads, c.head_dim
        past = view(past, (batch_size, self.num_virtual_tokens, parts, *heads))
        past_key_values = split(permute(past, (2, 0, 3, 1, 4)), KEY_AND_VALUE)
        del past
        past_key_values = self.base_model.cache_of(past_key_values)
        return past_key_values


def width(c: ModelConfig) -> int:
    """``token_dim``: of the keys of one layer, all heads together."""
    return c.num_key_value_heads * c.head_dim


def columns(c: ModelConfig) -> int:
    """Elements of a virtual token: its keys and values in all layers."""
    return c.num_hidden_layers * KEY_AND_VALUE * width(c)


def apply(model: Any, workload: Workload) -> Module:
    """``get_peft_model``: freeze, and put a cache before the model.

    Raises:
        ConfigError: With activation checkpointing, which PEFT refuses.
    """
    refuse_checkpointing(workload)
    freeze_all(model)
    return PrefixTuningModel(model, encoder_of(workload, model.config), workload.num_virtual_tokens)


def refuse_checkpointing(workload: Workload) -> None:
    """What PEFT refuses of a method that trains a cache.

    Raises:
        ConfigError: The workload has activation checkpointing.
    """
    if workload.activation_checkpointing:
        raise ConfigError(
            f"activation_checkpointing: {workload.method} does not go with it; PEFT refuses, "
            "because the cache that holds the prefix cannot be filled a second time. Turn it off, "
            "or use prompt_tuning or p_tuning."
        )


def encoder_of(workload: Workload, c: ModelConfig) -> PromptEncoder:
    """The encoder that ``peft_config`` asks for."""
    options = workload.peft_config
    if not options.get("prefix_projection"):
        return PrefixEncoder(workload.num_virtual_tokens, c)
    hidden = options.get("encoder_hidden_size") or width(c)
    return ProjectedPrefixEncoder(workload.num_virtual_tokens, c, hidden)
