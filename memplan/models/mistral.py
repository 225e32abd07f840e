"""Mistral: Llama with one window for all layers, or none.

Source: huggingface/transformers v5.18.0 models/mistral/modeling_mistral.py.
"""

from __future__ import annotations

from typing import ClassVar

from memplan.engine import Tensor
from memplan.models.llama import FULL, SLIDING, LlamaForCausalLM, LlamaModel, Masks
from memplan.models.masks import create_causal_mask


class MistralModel(LlamaModel):
    """``MistralModel``."""

    always_returns_cache = False

    def create_masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past: int | None,
    ) -> Masks:
        """One mask, with the window if there is one."""
        window = self.sliding_window
        args = self.implementation, inputs_embeds, attention_mask, position_ids
        mask = create_causal_mask(*args, past=past, sliding_window=window)
        return {FULL if window is None else SLIDING: mask}


class MistralForCausalLM(LlamaForCausalLM):
    """``MistralForCausalLM``."""

    model_class: ClassVar[type[LlamaModel]] = MistralModel
