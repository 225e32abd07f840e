"""Qwen2 and Qwen2.5: Llama with biased q, k and v, and layers of two kinds.

Source: huggingface/transformers v5.18.0 models/qwen2/modeling_qwen2.py.
"""

from __future__ import annotations

from typing import ClassVar

from memplan.engine import Tensor
from memplan.models.llama import FULL, SLIDING, LlamaForCausalLM, LlamaModel, Masks
from memplan.models.masks import create_causal_mask


class Qwen2Model(LlamaModel):
    """``Qwen2Model``."""

    always_returns_cache = False

    def create_masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past: int | None,
    ) -> Masks:
        """A mask for full layers, needed or not, and one for sliding layers where there are any."""
        args = self.implementation, inputs_embeds, attention_mask, position_ids
        masks: Masks = {FULL: create_causal_mask(*args, past=past)}
        if SLIDING in self.layer_types:
            window = self.sliding_window
            masks[SLIDING] = create_causal_mask(*args, past=past, sliding_window=window)
        return masks


class Qwen2ForCausalLM(LlamaForCausalLM):
    """``Qwen2ForCausalLM``."""

    model_class: ClassVar[type[LlamaModel]] = Qwen2Model
