"""Record how many parameters PEFT makes of every preset with every method.

    pip install torch transformers peft
    python tests/methods/record_parameter_counts.py

Builds each model on the meta device (no weights, no GPU) and writes ``parameter_counts.json``:
for each preset and case the number of all parameters and of those that train.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.models.presets import load_preset, preset_names
from tests.methods.cases import CASES, Json

OUTPUT = Path(__file__).with_name("parameter_counts.json")


def build(config: Json) -> Any:
    """The model as transformers builds it, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = dict(config)
    resolved = AutoConfig.for_model(keys.pop("model_type"), **keys)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(resolved, dtype=torch.bfloat16)


def adapt(model: Any, case: Json) -> Any:
    """The model as PEFT adapts it."""
    import peft

    keys = dict(case)
    method = keys.pop("method")
    if method == "full":
        return model
    if method == "frozen":
        return model.requires_grad_(False)
    if method == "prompt_tuning":
        config: Any = peft.PromptTuningConfig(task_type="CAUSAL_LM", **keys)
    else:
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=keys.pop("rank"), **keys)
    return peft.get_peft_model(model, config, low_cpu_mem_usage=method == "lora")


def count(config: Json, case: Json) -> list[int]:
    """(all, trainable), each parameter once."""
    params = list(adapt(build(config), case).parameters())
    return [sum(p.numel() for p in params), sum(p.numel() for p in params if p.requires_grad)]


def main() -> None:
    """Write the file."""
    from importlib.metadata import version

    counts = {
        preset: {name: count(dict(load_preset(preset)), case) for name, case in CASES.items()}
        for preset in sorted(preset_names())
    }
    versions = {name: version(name) for name in ("torch", "transformers", "peft")}
    text = json.dumps({"versions": versions, "presets": counts}, indent=1)
    OUTPUT.write_text(text + "\n")


if __name__ == "__main__":
    main()
