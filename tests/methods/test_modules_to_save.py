from __future__ import annotations

from typing import Any

import pytest

from memplan.dtypes import BF16
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.modules_to_save import ModulesToSaveWrapper
from tests.methods.models import HIDDEN, LAYERS, VOCABULARY, adapted, adapter_blocks, trainable


def wrapped(names: list[str], *, tied: bool = False) -> tuple[list[str], list[int]]:
    """What trains beside the adapter, and every block of the adapter phase. [bytes]"""
    with adapted(
        method="lora",
        model={"tie_word_embeddings": tied},
        modules_to_save=names,
        target_modules=["q_proj"],
        adapter_dtype="base",
    ) as (model, tape):
        saved = [name for name in trainable(model) if "lora_" not in name]
        return saved, adapter_blocks(tape)


def test_a_module_to_save_is_copied_in_the_base_dtype_after_the_adapters() -> None:
    saved, blocks = wrapped(["lm_head"])
    assert saved == ["lm_head.modules_to_save.weight"]
    assert blocks[2 * LAYERS :] == [VOCABULARY * HIDDEN * BF16.itemsize]


def test_tied_weights_part_when_both_are_saved() -> None:
    saved, blocks = wrapped(["embed_tokens", "lm_head"], tied=True)
    assert len(saved) == 2
    assert blocks[2 * LAYERS :] == [VOCABULARY * HIDDEN * BF16.itemsize] * 2


def test_norm_takes_every_norm() -> None:
    saved, blocks = wrapped(["norm"])
    assert len(saved) == 2 * LAYERS + 1
    assert blocks[2 * LAYERS :] == [HIDDEN * BF16.itemsize] * (2 * LAYERS + 1)


def test_a_whole_block_is_copied_with_its_children() -> None:
    with adapted(method="lora", modules_to_save=["mlp"], target_modules=["q_proj"]) as (model, _):
        wrappers = [m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]
        assert len(wrappers) == LAYERS
        assert sum("modules_to_save" in name for name in trainable(model)) == 3 * LAYERS


def test_a_module_to_save_within_another_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="lies within"):
        wrapped(["mlp", "up_proj"])


@pytest.mark.parametrize("name", ["q_proj", "self_attn"])
def test_what_is_quantised_cannot_be_trained_in_full(name: str) -> None:
    keys: dict[str, Any] = {"modules_to_save": [name], "target_modules": ["up_proj"]}
    with pytest.raises(ConfigError, match="floating point"):
        adapted(method="lora", quantization="nf4", **keys).__enter__()
