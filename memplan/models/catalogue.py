"""Which class runs which ``model_type``."""

from __future__ import annotations

from memplan.dtypes import DTYPES
from memplan.engine import S
from memplan.engine.repeat import Depth
from memplan.errors import unknown_name
from memplan.models.config import ModelConfig
from memplan.models.llama import LlamaForCausalLM
from memplan.models.mistral import MistralForCausalLM
from memplan.models.qwen2 import Qwen2ForCausalLM
from memplan.models.qwen3 import Qwen3ForCausalLM
from memplan.workload import Workload

FAMILIES: dict[str, type[LlamaForCausalLM]] = {
    "llama": LlamaForCausalLM,
    "mistral": MistralForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
}


def build_model(config: ModelConfig, workload: Workload, depth: Depth) -> LlamaForCausalLM:
    """The model on the meta device."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise unknown_name("model_type", config.model_type, FAMILIES)
    S.meta = True
    model = family(config, DTYPES[workload.dtype], workload.attention, depth)
    S.meta = False
    model.model.use_cache = workload.use_cache
    return model
