from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes
from memplan.errors import ConfigError
from memplan.estimate import estimate
from tests.methods.models import (
    HEAD,
    HEADS,
    KEY_VALUE_HEADS,
    LAYERS,
    MODEL,
    adapted,
    adapter_blocks,
    forward_blocks,
    trainable,
)

TOKENS, LENGTH, BATCH = 7, 33, 2
WIDTH = KEY_VALUE_HEADS * HEAD
COLUMNS = LAYERS * 2 * WIDTH
PREFIX: dict[str, Any] = {"method": "prefix_tuning", "num_virtual_tokens": TOKENS}


def test_keys_and_values_of_all_layers_are_one_fp32_tensor() -> None:
    with adapted(**PREFIX) as (model, tape):
        assert adapter_blocks(tape) == [TOKENS * COLUMNS * 4]
        assert trainable(model) == ["prompt_encoder.embedding.weight"]
        assert checkpoint_bytes(model, "prefix_tuning") == TOKENS * COLUMNS * 4


def test_a_projection_trains_a_network_and_saves_what_it_makes() -> None:
    hidden = 24
    options = {"prefix_projection": True, "encoder_hidden_size": hidden}
    with adapted(**PREFIX, peft_config=options) as (model, tape):
        parameters = [TOKENS * WIDTH, hidden * WIDTH, hidden, COLUMNS * hidden, COLUMNS]
        assert adapter_blocks(tape) == [4 * n for n in parameters]
        assert len(trainable(model)) == 5
        assert checkpoint_bytes(model, "prefix_tuning") == TOKENS * COLUMNS * 4


def test_a_cache_is_filled_before_the_model_runs() -> None:
    ids, prompt = BATCH * LENGTH * 8, BATCH * TOKENS * COLUMNS
    of_a_layer = BATCH * KEY_VALUE_HEADS * TOKENS * HEAD * 2  # keys, in bf16
    assert forward_blocks(**PREFIX, micro_batch_size=BATCH, seq_len=LENGTH)[:9] == [
        *(ids, ids),
        BATCH * TOKENS * 8,  # indices
        prompt * 4,  # embedded for every sequence
        prompt * 2,  # in the model's dtype
        *[of_a_layer] * (2 * LAYERS),
    ]


def test_attention_gets_a_mask_and_longer_keys() -> None:
    blocks = forward_blocks(**PREFIX, micro_batch_size=BATCH, seq_len=LENGTH)
    assert LENGTH * (TOKENS + LENGTH) in blocks  # bool
    assert BATCH * KEY_VALUE_HEADS * (TOKENS + LENGTH) * HEAD * 2 in blocks
    assert BATCH * HEADS * (TOKENS + LENGTH) * HEAD * 2 in blocks  # repeated: the mask forbids gqa


def test_checkpointing_is_refused_as_by_peft() -> None:
    with pytest.raises(ConfigError, match=r"prefix_tuning does not go with it.*prompt_tuning"):
        estimate(model=MODEL, **PREFIX, activation_checkpointing=True, seq_len=64)


def test_only_llama_returns_the_cache_that_it_was_given() -> None:
    keys = {**PREFIX, "seq_len": LENGTH, "keep_outputs": True, "steps": 1, "gpu": "a100-80gb"}
    kept = {
        family: estimate(model={**MODEL, "model_type": family}, **keys).phases["zero_grad"]
        for family in ("llama", "mistral")
    }
    cached = LAYERS * 2 * KEY_VALUE_HEADS * (TOKENS + LENGTH) * HEAD * 2
    assert kept["llama"].requested_bytes - kept["mistral"].requested_bytes == cached
