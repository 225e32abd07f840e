"""Which class runs which ``model_type``."""

from __future__ import annotations

from memplan.dtypes import DTYPES
from memplan.engine import S
from memplan.engine.repeat import Depth
from memplan.errors import unknown_name
from memplan.models.config import ModelConfig
from memplan.models.llama import LlamaForCausalLM
from memplan.workload import Workload

FAMILIES = {"llama": LlamaForCausalLM}


def build_model(config: ModelConfig, workload: Workload, depth: Depth) -> LlamaForCausalLM:
    """The model on the meta device."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise unknown_name("model_type", config.model_type, FAMILIES)
    S.meta = True
    model = family(config, DTYPES[workload.dtype], workload.attention, depth)
    S.meta = False
    return model
