"""Record the parameters of every preset, and of odd configs, as transformers builds them.

    pip install torch transformers
    python tests/evidence/record_parameter_counts.py

Builds each model on the meta device (no weights, no GPU) and writes ``parameter_counts.json``:
number of parameters, number of tensors, and a digest of their names and shapes in order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from memplan.models.presets import load_preset, preset_names

OUTPUT = Path(__file__).with_name("parameter_counts.json")

SMALL: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 777,
}
ODD: dict[str, dict[str, Any]] = {
    "llama-attention-bias": {**SMALL, "model_type": "llama", "attention_bias": True},
    "llama-mlp-bias": {**SMALL, "model_type": "llama", "mlp_bias": True},
    "llama-head-dim-tied": {
        **SMALL,
        "model_type": "llama",
        "head_dim": 40,
        "tie_word_embeddings": True,
    },
    "llama-defaults": {"model_type": "llama"},
    "mistral-head-dim": {**SMALL, "model_type": "mistral", "head_dim": 24},
    "mistral-defaults": {"model_type": "mistral"},
    "qwen2-tied": {**SMALL, "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-head-dim": {**SMALL, "model_type": "qwen2", "head_dim": 32},
    "qwen2-defaults": {"model_type": "qwen2"},
    "qwen3-attention-bias": {**SMALL, "model_type": "qwen3", "attention_bias": True},
    "qwen3-defaults": {"model_type": "qwen3"},
}


def digest(parameters: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """SHA-256 of the names and shapes, one a line, in order."""
    lines = (f"{name} {list(shape)}\n" for name, shape in parameters)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def record(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers makes of one config, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = dict(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(raw.pop("model_type"), **raw))
    parameters = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    return {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_tensors": len(parameters),
        "digest": digest(parameters),
    }


def main() -> None:
    """Record all of them."""
    import torch
    import transformers

    models = {name: record(load_preset(name)) for name in preset_names()}
    odd = {name: {"config": config, **record(config)} for name, config in ODD.items()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    text = json.dumps({"versions": versions, "presets": models, "odd": odd}, indent=1)
    OUTPUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
