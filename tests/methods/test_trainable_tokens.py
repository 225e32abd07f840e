from __future__ import annotations

from typing import Any

import pytest

from memplan.errors import ConfigError
from tests.methods.models import HIDDEN, VOCABULARY, adapted, adapter_blocks, forward_blocks

TOKENS = (3, 5, 8)
N = len(TOKENS)
KEYS: dict[str, Any] = {"method": "trainable_tokens", "peft_config": {"token_indices": TOKENS}}


def test_rows_are_taken_out_kept_twice_and_cast() -> None:
    with adapted(**KEYS) as (_, tape):
        row = N * HIDDEN
        assert adapter_blocks(tape) == [
            *(N * 8, row * 2),  # their numbers, the rows
            *(row * 2, row * 2),  # those that train, those that stay
            *(row * 4, row * 4),  # in fp32
        ]


def test_only_the_rows_train() -> None:
    with adapted(**KEYS) as (model, _):
        (p,) = [p for p in model.parameters() if p.requires_grad]
        assert (p.shape, p.dtype.name) == ((N, HIDDEN), "float32")


def test_each_forward_copies_the_table() -> None:
    blocks = forward_blocks(**KEYS, seq_len=33)
    assert blocks[2:6] == [
        *(N * 8, N * HIDDEN * 2),  # numbers, rows in the table's dtype
        VOCABULARY * HIDDEN * 2,  # the table with the rows
        33 * HIDDEN * 2,
    ]


def test_a_tied_head_copies_it_again() -> None:
    with adapted(model={"tie_word_embeddings": True}, **KEYS) as (model, _):
        assert len([p for p in model.parameters() if p.requires_grad]) == 1
        assert type(dict(model.named_modules())["lm_head"]).__name__ == "TiedTokensLayer"


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        (None, "say which tokens train"),
        ([], "the list is empty"),
        ([VOCABULARY], "is above 776"),
        ([1.5], "expected an integer"),
    ],
)
def test_tokens_must_be_named_and_be_of_the_vocabulary(indices: object, text: str) -> None:
    config = {} if indices is None else {"token_indices": indices}
    with (
        pytest.raises(ConfigError, match=text),
        adapted(method="trainable_tokens", peft_config=config),
    ):
        pass
