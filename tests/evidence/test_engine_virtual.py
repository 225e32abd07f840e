"""The virtual engine on the virtual GPU: both engines give the same numbers, and it takes more."""

from __future__ import annotations

from typing import Any

import pytest

import memplan
from tests.engine.strategies import SMALL

pytestmark = pytest.mark.virtual

TOTALS = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_bytes")
BOTH: list[dict[str, Any]] = [
    {"method": "lora", "seq_len": 70},
    {"method": "full", "seq_len": 64, "dtype": "float32", "autocast": "float16"},
    {"method": "lora", "seq_len": 64, "quantization": "nf4", "activation_checkpointing": True},
    {"method": "prompt_tuning", "seq_len": 50, "gradient_accumulation_steps": 2, "gpu": "a10g"},
    {"method": "ia3", "seq_len": 40},
    {"method": "prefix_tuning", "seq_len": 40, "loop": "plain"},
    {"method": "lora", "seq_len": 50, "loop": "trainer", "eval": "predictions", "save": True},
]
ONLY_VIRTUAL: list[dict[str, Any]] = [
    {"model": SMALL, "method": "boft"},
    {"model": {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4}, "method": "dora"},
    {
        "model": {
            "model_type": "t5",
            "d_model": 64,
            "d_ff": 96,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 100,
            "decoder_start_token_id": 0,
            "is_encoder_decoder": True,
        },
        "method": "lora",
    },
]


@pytest.mark.parametrize("keys", BOTH, ids=str)
def test_both_engines_give_the_same_numbers(keys: dict[str, Any]) -> None:
    ours = memplan.estimate(model=SMALL, engine="bytes", **keys)
    run = memplan.estimate(model=SMALL, engine="virtual", **keys)
    assert [getattr(run, t) for t in TOTALS] == [getattr(ours, t) for t in TOTALS]
    assert run.phases == ours.phases
    assert run.breakdown_at_peak == ours.breakdown_at_peak
    assert run.parameters == ours.parameters
    assert run.checkpoint_bytes == ours.checkpoint_bytes


@pytest.mark.parametrize("keys", ONLY_VIRTUAL, ids=str)
def test_what_the_byte_engine_does_not_know_is_run(keys: dict[str, Any]) -> None:
    e = memplan.estimate(seq_len=32, **keys)
    assert e.evidence.level == "virtual"
    assert sum(e.breakdown_at_peak.values()) == e.peak_allocated_bytes
    assert {"load", "forward", "backward", "optimizer_step"} <= e.phases.keys()


def test_a_library_s_refusal_is_told() -> None:
    with pytest.raises(memplan.ConfigError, match="Target modules"):
        memplan.estimate(
            model=SMALL, method="loha", target_modules="none_such", seq_len=8, engine="virtual"
        )
