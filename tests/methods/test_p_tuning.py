from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes
from memplan.errors import UnsupportedError
from memplan.estimate import estimate
from tests.methods.models import HIDDEN, MODEL, adapted, adapter_blocks, forward_blocks, trainable

TOKENS, LENGTH, BATCH, ENCODER = 7, 33, 2, 40
OPTIONS = {"encoder_hidden_size": ENCODER}
P_TUNING: dict[str, Any] = {
    "method": "p_tuning",
    "num_virtual_tokens": TOKENS,
    "peft_config": OPTIONS,
}


def test_three_layers_train_and_the_prompt_is_saved() -> None:
    with adapted(**P_TUNING) as (model, tape):
        parameters = [TOKENS * HIDDEN, ENCODER * HIDDEN, ENCODER, ENCODER * ENCODER, ENCODER]
        parameters += [HIDDEN * ENCODER, HIDDEN]
        assert adapter_blocks(tape) == [4 * n for n in parameters]
        assert len(trainable(model)) == 7
        assert checkpoint_bytes(model, "p_tuning") == TOKENS * HIDDEN * 4


def test_the_encoder_is_as_wide_as_the_model_unless_told() -> None:
    with adapted(method="p_tuning", num_virtual_tokens=TOKENS) as (_, tape):
        assert adapter_blocks(tape)[1] == HIDDEN * HIDDEN * 4


def test_the_prompt_is_encoded_once_for_the_batch() -> None:
    blocks = forward_blocks(**P_TUNING, micro_batch_size=BATCH, seq_len=LENGTH)
    at = blocks.index(TOKENS * HIDDEN * 4)
    hidden = TOKENS * ENCODER * 4
    assert blocks[at + 1] == hidden  # then the workspace of the first product
    assert blocks[at + 3 : at + 8] == [
        *[hidden] * 3,  # relu, the second layer, relu
        TOKENS * HIDDEN * 4,
        BATCH * TOKENS * HIDDEN * 4,
    ]


def test_an_lstm_is_left_to_the_libraries() -> None:
    options = {"encoder_reparameterization_type": "LSTM"}
    with pytest.raises(UnsupportedError, match="'LSTM' is not modelled; 'MLP' is"):
        estimate(model=MODEL, method="p_tuning", peft_config=options)
