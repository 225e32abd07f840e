"""Record memory snapshots of a small training with torch's own history, for ``test_explain``.

    PYTHON tests/evidence/record_snapshots.py FOLDER

PYTHON has torch and a device, real or virtual. Writes one packed snapshot a case and, in
``snapshots.json``, what torch's own counters said. Paths of this machine are cut from the stacks.
"""

from __future__ import annotations

import gzip
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "lora-all": {"stacks": "all"},
    "lora-python": {"stacks": "python"},
    "lora-late": {"stacks": "python", "late": True},
    "lora-ring": {"stacks": "python", "max_entries": 500},
    "full-python": {"stacks": "python", "method": "full", "steps": 3},
    "full-sgd": {"stacks": "python", "method": "full", "steps": 3, "optimizer": "SGD"},
    "checkpointing": {"stacks": "python", "checkpointing": True},
    "out-of-memory": {"stacks": "python", "method": "full", "batch": 2_000_000},
    "no-history": {"stacks": None},
}
SITE = re.compile(r"^.*/(site-packages|Python-[\d.]+|python3\.\d+)/")
KINDS = ("requested_bytes", "allocated_bytes", "reserved_bytes")


def start(case: dict[str, Any]) -> None:
    """Have torch record."""
    import torch

    if case["stacks"]:
        torch.cuda.memory._record_memory_history(
            max_entries=case.get("max_entries", 1 << 20), stacks=case["stacks"]
        )


def train(case: dict[str, Any]) -> None:
    """A plain loop over a small Llama; its locals live as long as a user's would."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    if not case.get("late"):
        start(case)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to("cuda")
    if case.get("checkpointing"):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case.get("method", "lora") == "lora":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM"))
    if case.get("late"):
        start(case)
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = getattr(torch.optim, case.get("optimizer", "AdamW"))(params, lr=1e-4)
    for _ in range(case.get("steps", 2)):
        ids = torch.randint(0, 512, (case.get("batch", 2), 64)).to("cuda")
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def cut_paths(snapshot: dict[str, Any]) -> None:
    """Leave of a path what is the same everywhere."""
    holders = [b for s in snapshot["segments"] for b in s["blocks"]]
    holders += list(snapshot["segments"]) + [e for t in snapshot["device_traces"] for e in t]
    for frame in {id(f): f for h in holders for f in h.get("frames", ())}.values():
        path = SITE.sub(r"/lib/\1/", frame["filename"])
        frame["filename"] = path if path.startswith("/lib/") else path.rpartition("/")[2]


def record(name: str, folder: Path) -> dict[str, int]:
    """Run one case in this process; what torch's counters say."""
    import torch

    try:
        train(CASES[name])
    except torch.OutOfMemoryError as error:
        error.__traceback__ = None
    stats = torch.cuda.memory_stats()
    snapshot: Any = torch.cuda.memory._snapshot()
    cut_paths(snapshot)
    (folder / f"{name}.pickle.gz").write_bytes(gzip.compress(pickle.dumps(snapshot), mtime=0))
    return {f"{k}.{w}": stats[f"{k}.all.{w}"] for k in KINDS for w in ("peak", "current")}


def main() -> None:
    """Record every case, each in a process of its own."""
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        sys.stdout.write(json.dumps(record(sys.argv[2], folder)) + "\n")
        return
    told = {}
    for name in CASES:
        command = [sys.executable, __file__, str(folder), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        told[name] = json.loads(done.stdout.splitlines()[-1])
    text = json.dumps(told, indent=1)
    (folder / "snapshots.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
