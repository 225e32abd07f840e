"""Which modules an adapter takes: PEFT's matching of names.

Source: huggingface/peft v0.21.2 peft/tuners/tuners_utils.py ``check_target_module_exists``,
``_maybe_include_all_linear_layers``; peft/utils/constants.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.engine.nn import Linear, Module
from memplan.selectors import as_tuple
from memplan.workload import PEFT_TARGETS, Workload

ALL_LINEAR = "all-linear"
OUTPUT_EMBEDDING = "lm_head"


@dataclass(frozen=True, slots=True)
class Targets:
    """What a LoRA config asks for.

    Attributes:
        modules: Names, ``all-linear``, or a regular expression that must match in full.
        saved: ``modules_to_save``; nothing in them is adapted.
        excluded: ``exclude_modules``: names, or a regular expression.
        layers: ``layers_to_transform``, or none for all.
        layers_pattern: What the list of layers may be called; none for anything.
        ranks: ``rank_pattern``: (pattern of a name's end, rank).
    """

    modules: str | tuple[str, ...]
    saved: tuple[str, ...] = ()
    excluded: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, workload: Workload) -> Targets:
        """The targets of a workload, PEFT's default of the model type where none are given."""
        given = {k: v for k, v in workload.peft_config.items() if v}
        excluded = given.get("exclude_modules", ())
        layers = workload.peft_config.get("layers_to_transform")
        return cls(
            workload.target_modules or PEFT_TARGETS,
            workload.modules_to_save,
            excluded if isinstance(excluded, str) else tuple(excluded),
            () if layers is None else as_tuple(layers),
            as_tuple(given.get("layers_pattern", ())),
            tuple(given.get("rank_pattern", {}).items()),
        )

    def matches(self, name: str, is_linear: bool) -> bool:
        """Whether the module of this qualified name is adapted."""
        if is_named(name, self.excluded):
            return False
        if any(re.match(rf"(^|.*\.){m}($|\..*)", name) for m in self.saved):
            return False
        if self.modules == ALL_LINEAR:
            return is_linear and name != OUTPUT_EMBEDDING
        return is_named(name, self.modules) and self.is_in_layers(name)

    def embedding_is_targeted(self) -> bool:
        """Whether an adapter's checkpoint holds the adapted embeddings, too.

        Source: huggingface/peft v0.21.2 peft/utils/save_and_load.py
        ``get_peft_model_state_dict``.
        """
        if self.modules == ALL_LINEAR:
            return False
        if isinstance(self.modules, str):
            return any(re.fullmatch(self.modules, n) for n in ("model.embed_tokens", "lm_head"))
        return any(name in self.modules for name in ("embed_tokens", OUTPUT_EMBEDDING))

    def is_in_layers(self, name: str) -> bool:
        """Whether a module lies in one of ``layers_to_transform``."""
        if not self.layers:
            return True
        patterns = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in self.layers_pattern]
        found = (re.match(p, name) for p in patterns or [r".*?\.[^.]*\.(\d+)\."])
        match = next((m for m in found if m), None)
        return match is not None and int(match[1]) in self.layers

    def rank(self, name: str, default: int) -> int:
        """The rank of the adapter of this module: ``get_pattern_key``."""
        ranks = (rank for pattern, rank in self.ranks if re.match(rf"(.*\.)?({pattern})$", name))
        return next(ranks, default)

    def find(self, model: Module) -> list[str]:
        """The qualified names that are adapted, in the order of registration."""
        modules = model.named_modules()
        return [name for name, m in modules if name and self.matches(name, isinstance(m, Linear))]


def is_named(name: str, wanted: str | tuple[str, ...]) -> bool:
    """Whether a qualified name matches a pattern in full, or is or ends with one of some names."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return name in wanted or any(name.endswith(f".{m}") for m in wanted)


def is_saved(name: str, modules_to_save: Sequence[str]) -> bool:
    """Whether a module is trained in full beside the adapter: by the end of its name, dot or not.

    Source: huggingface/peft v0.21.2 peft/utils/other.py ``_set_trainable``.
    """
    return any(name.endswith(m) for m in modules_to_save)
