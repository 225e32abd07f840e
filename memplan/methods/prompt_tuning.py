"""Prompt tuning as PEFT runs it: trained vectors before the embedded tokens.

Source: huggingface/peft v0.21.2 peft/peft_model.py ``PeftModelForCausalLM.forward``,
``get_prompt``; peft/tuners/prompt_tuning/model.py ``PromptEmbedding``.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import FP32, INT64
from memplan.engine import Tensor, alias, empty
from memplan.engine.nn import Embedding, Module
from memplan.engine.ops.pointwise import cat, to
from memplan.engine.ops.views import repeat_batch
from memplan.methods.full import freeze_all
from memplan.workload import Workload


class PeftModelForCausalLM(Module):
    """A frozen model behind a soft prompt, which is fp32 whatever the model's dtype."""

    def __init__(self, base_model: Any, num_virtual_tokens: int) -> None:
        self.base_model = base_model
        self.num_virtual_tokens = num_virtual_tokens
        width = base_model.model.embed_tokens.weight.shape[1]
        self.prompt_encoder = Embedding(num_virtual_tokens, width, FP32)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, labels: Tensor
    ) -> Any:
        """The base model on ``num_virtual_tokens`` more tokens a sequence."""
        prefix = (input_ids.shape[0], self.num_virtual_tokens)
        if attention_mask is not None:
            prefix_attention_mask = empty(prefix, FP32)  # torch.ones
            attention_mask = cat(prefix_attention_mask, attention_mask, 1)
        inputs_embeds = self.base_model.model.embed_tokens(input_ids)
        prefix_labels = empty(prefix, INT64)
        longer_labels = cat(prefix_labels, labels, 1)
        prompts = self.get_prompt(input_ids.shape[0])
        prompts = to(prompts, inputs_embeds.dtype)
        inputs_embeds = cat(prompts, inputs_embeds, 1)
        return self.base_model(
            attention_mask=attention_mask, inputs_embeds=inputs_embeds, labels=longer_labels
        )

    def get_prompt(self, batch_size: int) -> Tensor:
        """The prompt, embedded once and repeated; its indices are moved for the whole batch."""
        prompt_tokens = empty((batch_size, self.num_virtual_tokens), INT64)
        prompt_tokens = alias(prompt_tokens, (1, self.num_virtual_tokens))
        prompts = self.prompt_encoder(prompt_tokens)
        prompts = repeat_batch(prompts, batch_size)
        return prompts


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: freeze, and put the prompt before the model."""
    return PeftModelForCausalLM(freeze_all(model), workload.num_virtual_tokens)
