"""``ensure_weight_tying`` of LoRA: what trains in the place of tied embeddings stays tied.

Source: huggingface/peft v0.21.2 tuners/tuners_utils.py ``_check_tied_modules``,
tuners/lora/model.py ``_add_modules_to_save_to_tie``, utils/other.py
``set_additional_trainable_modules``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from memplan.errors import UnsupportedError
from memplan.methods.modules_to_save import ModulesToSaveWrapper, save_modules
from memplan.methods.targets import Targets
from memplan.workload import Workload

TABLE, HEAD = "model.embed_tokens", "lm_head"
EMBEDDINGS = ("embed_tokens", HEAD)


def save_and_tie(model: Any, workload: Workload) -> None:
    """Copy the modules to save; of tied embeddings one copy, which the head uses, too.

    Raises:
        UnsupportedError: It is an adapter that is to be tied, or one of several.
    """
    saved = workload.modules_to_save
    if not ties(model, workload):
        save_modules(model, saved)
        return
    refuse_tied_adapters(workload)
    if not any(name.split(".")[-1] in EMBEDDINGS for name in saved):
        save_modules(model, saved)
        return
    names = [*saved, *(() if TABLE in saved else (TABLE,))]
    first = next((m for m in names if re.match(rf"(^|.*\.){m}($|\..*)", HEAD)), None)
    save_modules(model, [m for m in names if m != first])
    model.lm_head = ModulesToSaveWrapper(
        model.lm_head, model.model.embed_tokens.modules_to_save.weight
    )


def ties(model: Any, workload: Workload) -> bool:
    """Whether it is asked for, and the model's embeddings are tied."""
    asked = bool(workload.peft_config.get("ensure_weight_tying"))
    return asked and bool(model.config.tie_word_embeddings)


def refuse_tied_adapters(workload: Workload) -> None:
    """Adapters that share their matrices are not modelled."""
    targets = replace(Targets.of(workload), saved=())
    is_targeted = any(targets.matches(name, False) for name in (TABLE, HEAD))
    if is_targeted or workload.adapters > 1:
        raise UnsupportedError(
            "peft_config: ensure_weight_tying is modelled for modules_to_save of one adapter; "
            "tied adapters of embeddings are not."
        )
