from __future__ import annotations

import pytest

from memplan.errors import ConfigError
from tests.methods.models import HIDDEN, adapted, adapter_blocks, forward_blocks, trainable

TOKENS, LENGTH, BATCH = 7, 33, 2


def prompted_blocks(attention_mask: str = "none") -> list[int]:
    """What the first forward allocates. [bytes]"""
    return forward_blocks(
        method="prompt_tuning",
        micro_batch_size=BATCH,
        seq_len=LENGTH,
        num_virtual_tokens=TOKENS,
        attention_mask=attention_mask,
    )


def test_the_prompt_is_fp32_and_alone_trains() -> None:
    with adapted(method="prompt_tuning", num_virtual_tokens=TOKENS) as (model, tape):
        assert adapter_blocks(tape) == [TOKENS * HIDDEN * 4]
        assert trainable(model) == ["prompt_encoder.embedding.weight"]


def test_the_prompt_goes_before_embeddings_and_labels() -> None:
    ids = BATCH * LENGTH * 8
    longer = BATCH * (TOKENS + LENGTH)
    assert prompted_blocks()[:9] == [
        *(ids, ids),
        BATCH * LENGTH * HIDDEN * 2,  # embedded tokens
        *(BATCH * TOKENS * 8, longer * 8),  # labels of the prompt, all labels
        BATCH * TOKENS * 8,  # indices of the prompt
        TOKENS * HIDDEN * 4,  # the prompt, embedded once
        BATCH * TOKENS * HIDDEN * 4,  # for each sequence
        BATCH * TOKENS * HIDDEN * 2,  # in the model's dtype
    ]


def test_a_mask_is_joined_to_ones_in_fp32() -> None:
    blocks = prompted_blocks("padding")
    assert blocks[3:5] == [BATCH * TOKENS * 4, BATCH * (TOKENS + LENGTH) * 4]


def test_words_are_embedded_copied_and_cast() -> None:
    of_words = {"prompt_tuning_init": "SAMPLE_VOCAB"}
    with adapted(method="prompt_tuning", num_virtual_tokens=TOKENS, peft_config=of_words) as (
        model,
        tape,
    ):
        words = TOKENS * HIDDEN * 2
        assert adapter_blocks(tape) == [TOKENS * 8, words, words, 2 * words]
        assert trainable(model) == ["prompt_encoder.embedding.weight"]


def test_a_text_needs_a_tokenizer() -> None:
    options = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Is it positive?"}
    with (
        pytest.raises(ConfigError, match="tokenizer_name_or_path"),
        adapted(method="prompt_tuning", peft_config=options),
    ):
        pass
