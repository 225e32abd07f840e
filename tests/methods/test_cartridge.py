from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes, count_parameters
from memplan.errors import ConfigError
from tests.methods.models import (
    HEAD,
    KEY_VALUE_HEADS,
    LAYERS,
    adapted,
    adapter_blocks,
    forward_blocks,
    trainable,
)

TOKENS = 7
COLUMNS = LAYERS * 2 * KEY_VALUE_HEADS * HEAD
CARTRIDGE: dict[str, Any] = {"method": "cartridge", "num_virtual_tokens": TOKENS}


def test_the_first_token_is_frozen_and_saved_with_the_others() -> None:
    with adapted(**CARTRIDGE) as (model, tape):
        assert adapter_blocks(tape) == [COLUMNS * 4, (TOKENS - 1) * COLUMNS * 4]
        assert trainable(model) == ["prompt_encoder.trainable_embedding"]
        assert count_parameters(model).trainable == (TOKENS - 1) * COLUMNS
        assert checkpoint_bytes(model, "cartridge") == TOKENS * COLUMNS * 4


def test_both_parts_are_joined_twice_once_to_ask_for_their_device() -> None:
    blocks = forward_blocks(**CARTRIDGE, seq_len=33)
    assert blocks[2:5] == [TOKENS * COLUMNS * 4, TOKENS * 8, TOKENS * COLUMNS * 4]


def test_without_frozen_tokens_nothing_is_joined() -> None:
    with adapted(**CARTRIDGE, peft_config={"num_frozen_tokens": 0}) as (_, tape):
        assert adapter_blocks(tape) == [TOKENS * COLUMNS * 4]


def test_one_token_must_train() -> None:
    with (
        pytest.raises(ConfigError, match="leave none that trains"),
        adapted(**CARTRIDGE, peft_config={"num_frozen_tokens": TOKENS}),
    ):
        pass
