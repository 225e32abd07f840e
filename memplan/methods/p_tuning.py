"""P-tuning as PEFT runs it: a network makes the virtual tokens of a small embedding.

Source: huggingface/peft v0.21.2 peft/tuners/p_tuning/model.py ``PromptEncoder``.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Embedding, Linear, Module
from memplan.engine.ops.activations import relu
from memplan.methods.full import freeze_all
from memplan.methods.prompt_learning import PeftModelForCausalLM, PromptEncoder, hidden_size
from memplan.workload import Workload


class MlpPromptEncoder(PromptEncoder):
    """``PromptEncoder`` with ``encoder_reparameterization_type="MLP"``: three layers, always."""

    def __init__(self, num_virtual_tokens: int, width: int, hidden: int) -> None:
        self.embedding = Embedding(num_virtual_tokens, width, FP32)
        self.mlp_head = [
            Linear(width, hidden, FP32, bias=True),
            Linear(hidden, hidden, FP32, bias=True),
            Linear(hidden, width, FP32, bias=True),
        ]

    def forward(self, indices: Tensor) -> Tensor:
        """indices: (1, V) -> (1, V, hidden_size)."""
        input_embeds = self.embedding(indices)
        x = relu(self.mlp_head[0](input_embeds))
        x = relu(self.mlp_head[1](x))
        output_embeds: Tensor = self.mlp_head[2](x)
        return output_embeds


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: freeze, and put the encoded prompt before the model."""
    width = hidden_size(freeze_all(model))
    hidden = workload.peft_config.get("encoder_hidden_size") or width
    encoder = MlpPromptEncoder(workload.num_virtual_tokens, width, hidden)
    return PeftModelForCausalLM(model, encoder, workload.num_virtual_tokens)
