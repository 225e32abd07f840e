"""Methods whose parameters are counted, in the keys of a workload."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MLP = ("gate_proj", "up_proj", "down_proj")

CASES: dict[str, Json] = {
    "full": {"method": "full"},
    "frozen": {"method": "frozen"},
    "lora": {"method": "lora", "rank": 8},
    "lora-all-linear": {"method": "lora", "rank": 16, "target_modules": "all-linear"},
    "lora-mlp": {"method": "lora", "rank": 3, "target_modules": list(MLP)},
    "lora-embedding": {
        "method": "lora",
        "rank": 4,
        "target_modules": ["embed_tokens", "lm_head", "q_proj"],
    },
    "lora-pattern": {
        "method": "lora",
        "rank": 64,
        "target_modules": r".*\.layers\.(0|1)\.self_attn\.[qkvo]_proj",
    },
    "lora-saved": {
        "method": "lora",
        "rank": 2,
        "modules_to_save": ["embed_tokens", "lm_head", "norm"],
    },
    "lora-bias-all": {"method": "lora", "rank": 1, "bias": "all"},
    "lora-bias-only": {"method": "lora", "rank": 1, "bias": "lora_only"},
    "prompt_tuning": {"method": "prompt_tuning", "num_virtual_tokens": 20},
}
