from __future__ import annotations

from typing import Any

import pytest

from memplan.dtypes import BF16, INT64
from memplan.engine import Kernels, Tape, empty, run
from memplan.models.config import load_model_config
from memplan.models.rope import RotaryEmbedding

HEAD, N = 32, 100
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
TYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {
        "short_factor": [1.0] * 16,
        "long_factor": [2.0] * 16,
        "original_max_position_embeddings": 64,
    },
}


def forward_blocks(rope_type: str, longest: int) -> list[int]:
    """What one forward allocates. [bytes]"""
    rope = {"rope_type": rope_type, "rope_theta": 1e4, **TYPES[rope_type]}
    config = {**SMALL, "max_position_embeddings": longest, "rope_parameters": rope}
    with run(Tape(), Kernels()) as tape:
        rotary = RotaryEmbedding(load_model_config(config))
        rotary.materialize()
        x, positions = empty((1, N, 128), BF16), empty((1, N), INT64)
        start = len(tape.events)
        rotary(x, positions)
        return [e for e in tape.events[start:] if e > 0]


@pytest.mark.parametrize("rope_type", ["linear", "llama3", "yarn"])
def test_a_fixed_scaling_runs_as_the_default_does(rope_type: str) -> None:
    assert forward_blocks(rope_type, 64) == forward_blocks("default", 64)


def test_dynamic_asks_for_the_longest_position_in_every_forward() -> None:
    asked = [8, 8, 1, 1]  # max, + 1, two comparisons
    assert forward_blocks("dynamic", 4096) == asked + forward_blocks("default", 4096)


def test_dynamic_makes_new_frequencies_past_the_longest_position() -> None:
    extra = len(forward_blocks("dynamic", 64)) - len(forward_blocks("dynamic", 4096))
    assert extra == 7 + 5  # the base, then range, quotient, power, reciprocal, product


def test_longrope_makes_the_long_factors_past_the_original_length() -> None:
    asked = [8, 8, 1]
    blocks = forward_blocks("longrope", 4096)
    assert blocks[: len(asked)] == asked
    frequencies = HEAD // 2 * 4
    assert blocks[len(asked) :][:3] == [frequencies, 2 * frequencies, frequencies]
