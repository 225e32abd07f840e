"""Cartridges as PEFT runs them: a prefix that is stored as it is, its first tokens frozen.

Source: huggingface/peft v0.21.2 peft/tuners/cartridge/model.py ``CartridgeEncoder``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Module, parameter
from memplan.engine.ops.pointwise import cat
from memplan.engine.ops.views import expand, unsqueeze
from memplan.errors import ConfigError
from memplan.methods.full import freeze_all
from memplan.methods.prefix_tuning import PrefixTuningModel, columns, refuse_checkpointing
from memplan.methods.prompt_learning import PromptEncoder
from memplan.workload import Workload

if TYPE_CHECKING:
    from memplan.models.config import ModelConfig

FROZEN_TOKENS = 1
"""``CartridgeConfig.num_frozen_tokens``. [tokens]"""


class CartridgeEncoder(PromptEncoder):
    """``CartridgeEncoder``."""

    def __init__(self, num_virtual_tokens: int, num_frozen_tokens: int, c: ModelConfig) -> None:
        self.num_virtual_tokens, self.columns = num_virtual_tokens, columns(c)
        self.frozen_embedding: Tensor | None = None
        if num_frozen_tokens:
            shape = num_frozen_tokens, self.columns
            self.frozen_embedding = parameter(shape, FP32, requires_grad=False)
        self.trainable_embedding = parameter(
            (num_virtual_tokens - num_frozen_tokens, self.columns), FP32
        )

    @property
    def saved_shape(self) -> tuple[int, int]:
        """Frozen and trained tokens alike."""
        return self.num_virtual_tokens, self.columns

    def weight(self) -> Tensor:
        """Both parts as one tensor, made anew each time."""
        if self.frozen_embedding is None:
            return self.trainable_embedding
        return cat(self.frozen_embedding, self.trainable_embedding, 0)

    def forward(self, prefix_tokens: Tensor) -> Tensor:
        """prefix_tokens: (B, V) -> (B, V, L * 2 * KV * D)."""
        shape = prefix_tokens.shape[0], self.num_virtual_tokens, self.columns
        return expand(unsqueeze(self.weight(), 0), shape)


class CartridgeModel(PrefixTuningModel):
    """``PeftModelForCausalLM`` of ``CARTRIDGE``."""

    prompt_encoder: CartridgeEncoder

    def prompt_tokens(self, batch_size: int) -> Tensor:
        """The indices; to ask for the encoder's device, its weight is made."""
        self.prompt_encoder.weight()
        return super().prompt_tokens(batch_size)


def apply(model: Any, workload: Workload) -> Module:
    """``get_peft_model``: freeze, and put a cache before the model.

    Raises:
        ConfigError: With activation checkpointing, or with every token frozen.
    """
    refuse_checkpointing(workload)
    frozen = workload.peft_config.get("num_frozen_tokens", FROZEN_TOKENS)
    if frozen >= workload.num_virtual_tokens:
        raise ConfigError(
            f"peft_config: num_frozen_tokens: {frozen} of {workload.num_virtual_tokens} virtual "
            "tokens leave none that trains; raise num_virtual_tokens."
        )
    freeze_all(model)
    encoder = CartridgeEncoder(workload.num_virtual_tokens, frozen, model.config)
    return CartridgeModel(model, encoder, workload.num_virtual_tokens)
