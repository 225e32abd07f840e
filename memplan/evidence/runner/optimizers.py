"""A workload's optimizer: memplan's own names, and whatever ``TrainingArguments.optim`` takes."""

from __future__ import annotations

import tempfile
from typing import Any

Json = dict[str, Any]

LR = 1e-4
ADAMW: dict[str, Json] = {
    "adamw_foreach": {"foreach": True},
    "adamw_fused": {"fused": True},
    "adamw_loop": {"foreach": False},
}
SGD = {"sgd": 0.0, "sgd_momentum": 0.9}
BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}
# What `TrainingArguments.optim` calls these: the reverse of `vocabulary.OPTIMIZER_ALIASES`.
TRAINER_NAMES = {
    "adamw_foreach": "adamw_torch",
    "adamw_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "lion": "lion_32bit",
}


def trainer_name(name: str) -> str | None:
    """The word that ``TrainingArguments.optim`` has for an optimizer, if it has one."""
    from transformers.training_args import OptimizerNames

    word = TRAINER_NAMES.get(name, name)
    return word if word in {o.value for o in OptimizerNames} else None


def build_optimizer(w: Json, model: Any, params: list[Any]) -> Any:
    """The optimizer of that name, or none.

    Args:
        w: The workload.
        model: The model, for optimizers that look into it.
        params: What trains.

    Raises:
        NotImplementedError: Nobody has such an optimizer.
    """
    import torch

    name: str = w["optimizer"]
    if name == "none":
        return None
    if w["method"] == "lora_fa":
        return lorafa(w, model)
    if name in BITSANDBYTES:
        import bitsandbytes

        return getattr(bitsandbytes.optim, BITSANDBYTES[name])(params, lr=LR)
    if name in SGD:
        return torch.optim.SGD(params, lr=LR, momentum=SGD[name])
    if name in ADAMW:
        return torch.optim.AdamW(params, lr=LR, **ADAMW[name])
    if name == "muon":
        return torch.optim.Muon(params, lr=LR)
    return of_trainer(name, model, params)


def lorafa(w: Json, model: Any) -> Any:
    """PEFT's optimizer that is the method: it freezes every ``lora_A`` and updates ``lora_B``."""
    from peft.optimizers import create_lorafa_optimizer

    return create_lorafa_optimizer(model, r=w["rank"], lora_alpha=w["alpha"], lr=LR)


def of_trainer(name: str, model: Any, params: list[Any]) -> Any:
    """The optimizer that the Trainer makes of a name, over one group of parameters."""
    from transformers import Trainer, TrainingArguments

    word = trainer_name(name)
    if word is None:
        raise NotImplementedError(f"no library here has an optimizer {name!r}")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, optim=word, learning_rate=LR, optim_target_modules="all-linear", report_to=[]
        )
        kind, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if "params" in keywords:
        params = keywords.pop("params")
    if "model" in keywords:
        return kind(**keywords)
    if "optimizer_dict" in keywords:
        return kind(**keywords)
    return kind(params, **keywords)
