"""Record what transformers makes of odd model configs: every derived field, or its refusal.

    pip install torch transformers
    python tests/evidence/record_configs.py

Builds each config, a model of it on the meta device, and runs a short forward and backward on the
CPU where the config is built at all: what fails only then is refused too. Writes
``resolved_configs.json``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("resolved_configs.json")

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"hidden_size": 60},
    {"hidden_size": 60, "head_dim": 8},
    {"head_dim": 16},
    {"head_dim": 15},
    {"head_dim": 3},
    {"head_dim": None},
    {"head_dim": 0},
    {"head_dim": -8},
    {"head_dim": 8.0},
    {"num_key_value_heads": None},
    {"num_key_value_heads": 3},
    {"num_key_value_heads": 16},
    {"num_key_value_heads": 8},
    {"num_key_value_heads": 1},
    {"num_attention_heads": 6},
    {"hidden_size": "64"},
    {"hidden_size": 64.0},
    {"hidden_size": True},
    {"hidden_size": None},
    {"vocab_size": None},
    {"num_hidden_layers": 1},
    {"attention_bias": True},
    {"attention_bias": 1},
    {"mlp_bias": True},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": None},
    {"sliding_window": None},
    {"sliding_window": 16},
    {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 9},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
    {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 0},
    {"layer_types": ["full_attention"] * 4},
    {"layer_types": ["full_attention"] * 3},
    {"layer_types": ["sliding_attention", "full_attention"] * 2},
    {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "use_sliding_window": True,
        "sliding_window": 16,
    },
    {"layer_types": ["attention"] * 4},
    {"pad_token_id": 0},
    {"pad_token_id": -1},
    {"pad_token_id": 99},
    {"pad_token_id": 100},
    {"pad_token_id": -101},
    {"rope_theta": 500000.0},
    {"rope_theta": 10000},
    {"rope_scaling": LLAMA3},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "linear"}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    {"rope_scaling": {"rope_type": "nonesuch", "factor": 2.0}},
    {"hidden_act": "swish"},
)
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def resolved(model: Any) -> dict[str, Any]:
    """The fields that the forward reads, from the model that was built."""
    config, layer = model.config, model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    layers = config.num_hidden_layers
    return {
        "head_dim": attention.head_dim,
        "num_key_value_heads": config.num_key_value_heads,
        "qkv_bias": attention.q_proj.bias is not None,
        "o_bias": attention.o_proj.bias is not None,
        "mlp_bias": mlp.up_proj.bias is not None,
        "has_qk_norm": hasattr(attention, "q_norm"),
        "tie_word_embeddings": bool(config.tie_word_embeddings),
        "sliding_window": getattr(config, "sliding_window", None),
        "layer_types": list(getattr(config, "layer_types", None) or ["full_attention"] * layers),
        "rope_type": config.rope_parameters["rope_type"],
        "rope_theta": float(config.rope_parameters["rope_theta"]),
        "pad_token_id": config.pad_token_id,
    }


def record(raw: dict[str, Any]) -> dict[str, Any]:
    """What becomes of one config: its fields, or the kind of error."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        keys = dict(raw)
        config = AutoConfig.for_model(keys.pop("model_type"), **keys)
        model = AutoModelForCausalLM.from_config(config)
        ids = torch.arange(48)[None] % min(config.vocab_size, 90)
        model(input_ids=ids, labels=ids).loss.backward()
        return {"resolved": resolved(model)}
    except Exception as error:
        return {"error": type(error).__name__}


def cases() -> Iterator[dict[str, Any]]:
    """Every change of the small config, for every model type."""
    for model_type, change in itertools.product(MODEL_TYPES, CHANGES):
        yield {"model_type": model_type, **SMALL, **change}


def main() -> None:
    """Record all of them."""
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    recorded = [{"config": raw, **record(raw)} for raw in cases()]
    lines = ",\n".join(json.dumps(case) for case in recorded)
    text = f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n'
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
