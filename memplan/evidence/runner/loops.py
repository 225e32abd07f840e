"""The training loops. Their statements, locals and order decide which tensor is alive when.

So they are evidence: ``plain`` is the loop that the byte engine mirrors, statement by statement,
and a tidier one would measure something else. ``trainer`` is transformers' own. A forced attention
kernel is forced for the whole loop: non-reentrant checkpointing runs the forward again inside the
backward, outside any context that stands around the forward alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from memplan.evidence.runner.methods import apply_method
from memplan.evidence.runner.models import load_model
from memplan.evidence.runner.optimizers import build_optimizer
from memplan.evidence.runner.parallel import spread
from memplan.evidence.runner.trainer import train_with_trainer

Json = dict[str, Any]
KERNELS = {
    "sdpa-math": "MATH",
    "sdpa-efficient": "EFFICIENT_ATTENTION",
    "sdpa-flash": "FLASH_ATTENTION",
}


class Marks(Protocol):
    """What a loop needs of the recorder."""

    def end_phase(self, name: str, step: int) -> None:
        """Read the counters, and start the next phase."""

    def install_hooks(self, model: Any) -> None:
        """Find the phases from here on by itself."""

    def end_evaluation(self) -> None:
        """An evaluation that the hooks found is over."""


def attention_kernel(w: Json) -> Any:
    """The context that forces the workload's attention kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if w["attention"] not in KERNELS:
        return contextlib.nullcontext()
    return sdpa_kernel(getattr(SDPBackend, KERNELS[w["attention"]]))


def train_plain(w: Json, model_config: Mapping[str, Any], recorder: Marks) -> Any:  # noqa: C901
    """Load, then run the plain loop. Its locals live as long as a user's would."""
    import torch

    model = load_model(w, model_config)
    recorder.end_phase("load", 0)
    model = apply_method(w, model)
    model.train()
    run = spread(w, model)
    recorder.end_phase("adapter", 0)
    params = [p for p in model.parameters() if p.requires_grad]
    opt = build_optimizer(w, model, params)
    recorder.end_phase("optimizer_init", 0)
    vocab = model.config.get_text_config().vocab_size
    amp = None if w["autocast"] == "none" else getattr(torch, w["autocast"])
    scaler = torch.amp.GradScaler("cuda") if amp is torch.float16 else None
    b, n, accumulation = w["micro_batch_size"], w["seq_len"], w["gradient_accumulation_steps"]
    outputs = None
    for step in range(1, w["steps"] + 1):
        for _ in range(accumulation):
            ids = torch.randint(0, vocab, (b, n)).to("cuda")
            kw = {"input_ids": ids}
            kw["labels"] = ids.clone()
            if w["attention_mask"] != "none":
                kw["attention_mask"] = torch.ones(b, n, dtype=torch.long).to("cuda")
            with torch.autocast("cuda", amp) if amp else contextlib.nullcontext():
                outputs = run(**kw)
                loss = outputs.loss
            if not w["keep_outputs"]:
                outputs = None
            loss = loss / accumulation
            recorder.end_phase("forward", step)
            if loss.requires_grad:
                (scaler.scale(loss) if scaler else loss).backward()
            recorder.end_phase("backward", step)
        if w["max_grad_norm"]:
            if scaler:
                scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(params, w["max_grad_norm"])
        if opt is not None:
            if scaler:
                scaler.step(opt)
                scaler.update()
            else:
                opt.step()
        loss.detach().item()
        recorder.end_phase("optimizer_step", step)
        if opt is not None:
            opt.zero_grad(set_to_none=True)
        recorder.end_phase("zero_grad", step)
    return model


LOOPS = {"plain": train_plain, "trainer": train_with_trainer}
