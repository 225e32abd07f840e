"""What PEFT does around every soft prompt: a frozen model behind an encoder of virtual tokens.

The encoder is fp32 whatever the model's dtype: it is made on the host and moved as it is.

Source: huggingface/peft v0.21.2 peft/peft_model.py ``_setup_prompt_encoder``, ``get_prompt``,
``PeftModelForCausalLM.forward``; utils/other.py ``_prepare_prompt_learning_config``.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import FP32, INT64
from memplan.engine import Tensor, empty
from memplan.engine.nn import Embedding, Module
from memplan.engine.ops.pointwise import cat, to
from memplan.engine.ops.views import narrow, repeat_batch


class PromptEncoder(Module):
    """``BasePromptEncoder``: indices of virtual tokens -> what stands for them."""

    embedding: Embedding

    @property
    def saved_shape(self) -> tuple[int, int]:
        """Rows and columns that the checkpoint holds: the prompt itself, not what encodes it."""
        return self.embedding.weight.shape[0], self.embedding.weight.shape[1]


class PromptLearningModel(Module):
    """``PeftModelForCausalLM`` of a prompt learning method."""

    def __init__(self, base_model: Any, encoder: PromptEncoder, num_virtual_tokens: int) -> None:
        self.base_model = base_model
        self.num_virtual_tokens = num_virtual_tokens
        self.prompt_encoder = encoder

    def saved_instead(self) -> int:
        """The prompt in fp32: ``get_prompt_embedding_to_save``."""
        rows, columns = self.prompt_encoder.saved_shape
        return rows * columns * FP32.itemsize

    def ones(self, batch_size: int) -> Tensor:
        """A mask for the virtual tokens: ``torch.ones``, in fp32."""
        return empty((batch_size, self.num_virtual_tokens), FP32)

    def prompt_tokens(self, batch_size: int) -> Tensor:
        """Indices of the virtual tokens, moved to the device for the whole batch."""
        return empty((batch_size, self.num_virtual_tokens), INT64)


class PeftModelForCausalLM(PromptLearningModel):
    """A prompt that is embedded before the tokens."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, labels: Tensor
    ) -> Any:
        """The base model on ``num_virtual_tokens`` more tokens a sequence."""
        batch_size = input_ids.shape[0]
        if attention_mask is not None:
            prefix_attention_mask = self.ones(batch_size)  # lives as long as the forward
            attention_mask = cat(prefix_attention_mask, attention_mask, 1)
        inputs_embeds = self.base_model.model.embed_tokens(input_ids)
        prefix_labels = empty((batch_size, self.num_virtual_tokens), INT64)
        longer_labels = cat(prefix_labels, labels, 1)
        prompts = self.get_prompt(batch_size)
        prompts = to(prompts, inputs_embeds.dtype)
        inputs_embeds = cat(prompts, inputs_embeds, 1)
        return self.base_model(
            attention_mask=attention_mask, inputs_embeds=inputs_embeds, labels=longer_labels
        )

    def get_prompt(self, batch_size: int) -> Tensor:
        """The prompt, encoded once and repeated; its indices are moved for the whole batch."""
        prompt_tokens = self.prompt_tokens(batch_size)
        prompt_tokens = narrow(prompt_tokens, 0, 1)
        prompts = self.prompt_encoder(prompt_tokens)
        prompts = repeat_batch(prompts, batch_size)
        return prompts


def hidden_size(model: Any) -> int:
    """``token_dim``: the width of the embedded tokens."""
    width: int = model.model.embed_tokens.weight.shape[1]
    return width
