"""A checkpoint as the Trainer writes it: the model or the adapter, the optimizer, the scaler.

All of it is read tensor by tensor to the host. On the device only a few small blocks are made:
double quantisation's code, copied for each layer, and a soft prompt, which PEFT makes once more.

Source: huggingface/transformers v5.18.0 trainer.py ``_save_checkpoint``, ``_save``;
huggingface/peft v0.21.2 utils/save_and_load.py ``get_peft_model_state_dict``, peft_model.py
``get_prompt_embedding_to_save``; bitsandbytes v0.50.2 functional.py ``QuantState.as_dict``.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.engine import S, Storage
from memplan.engine.nn import Module
from memplan.engine.tape import OUTSIDE
from memplan.methods.prompt_learning import PromptLearningModel
from memplan.quantization.bnb_4bit import Linear4bit


def save(model: Module) -> None:
    """``_save_checkpoint``."""
    state_dict = list(copied_codes(model))
    if isinstance(model, PromptLearningModel):
        prompt_tokens = model.prompt_tokens(1)
        prompt_embeddings = model.prompt_encoder(prompt_tokens)
        del prompt_tokens, prompt_embeddings
    del state_dict


def copied_codes(model: Module) -> Iterator[Storage]:
    """``nested_quant_map`` of every layer, which is not to share its memory in the file."""
    for module in model.modules():
        if isinstance(module, Linear4bit) and module.state.nested is not None:
            S.tape.enter(module.weight.layer)
            code: Storage = module.state.nested[2]
            yield Storage(code.nbytes)
    S.tape.enter(OUTSIDE)
