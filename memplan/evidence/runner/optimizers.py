"""A workload's optimizer: memplan's own names, and whatever ``TrainingArguments.optim`` takes."""

from __future__ import annotations

import tempfile
from typing import Any

Json = dict[str, Any]

LR = 1e-4
MIN_8BIT_SIZE = "min_8bit_size"  # bitsandbytes takes it, the Trainer hands none on
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
    "rmsprop_bnb": "rmsprop_bnb_32bit",
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

        kind = getattr(bitsandbytes.optim, BITSANDBYTES[name])
        return kind(params, lr=LR, **w.get("optim_args", {}))
    if name in SGD:
        return torch.optim.SGD(params, lr=LR, momentum=SGD[name])
    if name in ADAMW:
        return torch.optim.AdamW(params, lr=LR, **ADAMW[name])
    if name == "muon":
        return muon(model, params)
    if name in ("lomo", "adalomo") and w.get("loop") != "trainer":
        raise ValueError(f"{name} updates inside of a backward of its own: use loop: trainer")
    optimizer = of_trainer(w, model, params)
    if hasattr(optimizer, "train"):
        optimizer.train()  # as the Trainer does with those that are free of a schedule
    return optimizer


def muon(model: Any, params: list[Any]) -> Any:
    """Muon for the matrices of hidden layers and AdamW for all else, as torch's documentation says.

    Both as one optimizer, for the loops.
    """
    import torch

    embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    others = {id(p) for m in embeddings for p in m.parameters(recurse=False)}
    others |= {id(p) for name, p in model.named_parameters() if "lm_head" in name or p.ndim != 2}
    kinds = {torch.optim.Muon: False, torch.optim.AdamW: True}
    parts = [
        kind([p for p in params if (id(p) in others) == is_other], lr=LR)
        for kind, is_other in kinds.items()
        if any((id(p) in others) == is_other for p in params)
    ]

    class Together(torch.optim.Optimizer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(params, {"lr": LR})

        def step(self, closure: Any = None) -> None:
            for part in parts:
                part.step()

    return Together()


def lorafa(w: Json, model: Any) -> Any:
    """PEFT's optimizer that is the method: it freezes every ``lora_A`` and updates ``lora_B``."""
    from peft.optimizers import create_lorafa_optimizer

    return create_lorafa_optimizer(model, r=w["rank"], lora_alpha=w["alpha"], lr=LR)


def trainers_optim_args(w: Json) -> str | None:
    """``TrainingArguments.optim_args``, if there is something that it takes."""
    given = {k: v for k, v in w.get("optim_args", {}).items() if k != MIN_8BIT_SIZE}
    return ",".join(f"{key}={value}" for key, value in given.items()) or None


def of_trainer(w: Json, model: Any, params: list[Any]) -> Any:
    """The optimizer that the Trainer makes of a name, over one group of parameters."""
    from transformers import Trainer, TrainingArguments

    word = trainer_name(w["optimizer"])
    if word is None:
        raise NotImplementedError(f"no library here has an optimizer {w['optimizer']!r}")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            optim=word,
            optim_args=trainers_optim_args(w),
            learning_rate=LR,
            optim_target_modules="all-linear",
            report_to=[],
        )
        kind, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if MIN_8BIT_SIZE in w.get("optim_args", {}):
        keywords[MIN_8BIT_SIZE] = w["optim_args"][MIN_8BIT_SIZE]
    if "params" in keywords:
        params = keywords.pop("params")
    if "model" in keywords:
        return kind(**keywords)
    if "optimizer_dict" in keywords:
        return kind(**keywords)
    return kind(params, **keywords)
