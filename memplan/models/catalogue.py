"""Which class runs which ``model_type``."""

from __future__ import annotations

from memplan.dtypes import DTYPES
from memplan.engine import S
from memplan.engine.repeat import Depth
from memplan.errors import UnsupportedError, unknown_name
from memplan.models.config import ModelConfig
from memplan.models.llama import LlamaForCausalLM
from memplan.models.llama_adapters import LlamaForCausalLMWithAdapters
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
WITH_ADAPTERS: dict[str, type[LlamaForCausalLM]] = {"llama": LlamaForCausalLMWithAdapters}
"""The same of the ``adapters`` library, as far as they are modelled."""


def build_model(config: ModelConfig, workload: Workload, depth: Depth) -> LlamaForCausalLM:
    """The model on the meta device.

    Raises:
        UnsupportedError: The ``adapters`` library's version of the family is not modelled.
    """
    if workload.method == "bottleneck_adapter":
        family = WITH_ADAPTERS.get(config.model_type)
        if family is None:
            listed = ", ".join(WITH_ADAPTERS)
            raise UnsupportedError(
                f"model_type: {config.model_type!r} with bottleneck_adapter is not modelled yet; "
                f"{listed} is."
            )
    else:
        family = FAMILIES.get(config.model_type)
    if family is None:
        raise unknown_name("model_type", config.model_type, FAMILIES)
    S.meta = True
    model = family(config, DTYPES[workload.dtype], workload.attention, depth)
    S.meta = False
    model.model.use_cache = workload.use_cache
    return model
