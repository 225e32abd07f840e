"""Which modules an adapter takes: PEFT's matching of names.

Source: huggingface/peft v0.21.2 peft/tuners/tuners_utils.py ``check_target_module_exists``,
``_maybe_include_all_linear_layers``; peft/utils/constants.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.engine.nn import Linear, Module
from memplan.workload import Workload

ALL_LINEAR = "all-linear"
OUTPUT_EMBEDDING = "lm_head"
DEFAULT_TARGETS = ("q_proj", "v_proj")
"""``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`` of llama, mistral, qwen2 and qwen3."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What a LoRA config asks for.

    Attributes:
        modules: Names, ``all-linear``, or a regular expression that must match in full.
        saved: ``modules_to_save``; nothing in them is adapted.
    """

    modules: str | tuple[str, ...]
    saved: tuple[str, ...] = ()

    @classmethod
    def of(cls, workload: Workload) -> Targets:
        """The targets of a workload, PEFT's default of the model type where none are given."""
        return cls(workload.target_modules or DEFAULT_TARGETS, workload.modules_to_save)

    def matches(self, name: str, is_linear: bool) -> bool:
        """Whether the module of this qualified name is adapted."""
        if any(re.match(rf"(^|.*\.){m}($|\..*)", name) for m in self.saved):
            return False
        if self.modules == ALL_LINEAR:
            return is_linear and name != OUTPUT_EMBEDDING
        if isinstance(self.modules, str):
            return re.fullmatch(self.modules, name) is not None
        return name in self.modules or any(name.endswith(f".{m}") for m in self.modules)

    def find(self, model: Module) -> list[str]:
        """The qualified names that are adapted, in the order of registration."""
        modules = model.named_modules()
        return [name for name, m in modules if name and self.matches(name, isinstance(m, Linear))]


def is_saved(name: str, modules_to_save: Sequence[str]) -> bool:
    """Whether a module is trained in full beside the adapter: by the end of its name, dot or not.

    Source: huggingface/peft v0.21.2 peft/utils/other.py ``_set_trainable``.
    """
    return any(name.endswith(m) for m in modules_to_save)
