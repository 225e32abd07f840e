"""A plain loop under ``memplan.watch`` on the device that torch has; run by ``test_watch_virtual``.

    PYTHON watched_training.py plain|trainer|oom

Writes JSON: the watch's lines, what torch counted with it, and whether the error came through.
"""

from __future__ import annotations

import json
import sys
from typing import Any

CONFIG: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "use_cache": False,
}  # fmt: skip


def build_model() -> Any:
    """A small Llama on the device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    model = AutoModelForCausalLM.from_config(LlamaConfig(**CONFIG), dtype=torch.bfloat16)
    return model.to("cuda").train()


def train(model: Any, batch: int, steps: int) -> None:
    """The loop that ``loop: plain`` mirrors."""
    import torch

    params = list(model.parameters())
    optimizer = torch.optim.AdamW(params, fused=True)
    for _ in range(steps):
        ids = torch.randint(0, 512, (batch, 64)).to("cuda")
        labels = ids.clone()
        outputs = model(input_ids=ids, labels=labels)
        loss = outputs.loss
        outputs = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        loss.detach().item()
        optimizer.zero_grad(set_to_none=True)


def train_with_trainer(model: Any, watched: Any) -> None:
    """The Trainer with the watch as a callback."""
    import tempfile

    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": list(range(64)), "labels": list(range(64))} for _ in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=2, per_device_train_batch_size=2, report_to=[],
            save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows, callbacks=[watched.callback()]).train()


def main(kind: str) -> None:
    """Run one kind of loop."""
    import torch

    from memplan.evidence.watch import watch

    batch, lines, error = (2_000_000 if kind == "oom" else 2), list[str](), ""
    torch.backends.cuda.enable_cudnn_sdp(False)
    model = build_model()
    watched = watch(model, seq_len=64, micro_batch_size=batch, log=lines.append)
    if kind == "trainer":
        train_with_trainer(model, watched)
    else:
        try:
            with watched:
                train(model, batch, 3)
        except torch.OutOfMemoryError as stop:
            error = type(stop).__name__
    peak = watched.peak_allocated_bytes
    phases = watched.estimate.phases if watched.estimate else {}
    predicted = {name: phase.peak_allocated_bytes for name, phase in phases.items()}
    told = {"lines": lines, "peak": peak, "error": error, "predicted": predicted}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
