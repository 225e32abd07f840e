"""The runner's own code, as far as it needs no torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memplan.evidence.runner import checkpoint, methods
from memplan.evidence.runner.__main__ import MAX_TEXT, describe
from memplan.evidence.runner.loops import LOOPS
from memplan.vocabulary import CHOICES, OPTIMIZER_ALIASES
from memplan.workload import Workload


def keys(**more: Any) -> dict[str, Any]:
    return Workload.resolve(model="7b", **more)[0].to_dict()


def test_every_loop_of_the_vocabulary_is_run() -> None:
    choice = CHOICES["loop"]
    assert set(LOOPS) == {*choice.modelled, *choice.known}


def test_trainer_names_are_the_aliases_reversed() -> None:
    from memplan.evidence.runner.optimizers import TRAINER_NAMES

    reverse = {name: alias for alias, name in OPTIMIZER_ALIASES}
    assert reverse == TRAINER_NAMES


def test_what_says_nothing_is_left_to_peft() -> None:
    given = methods.keys_of(keys(method="lora"))
    assert "target_modules" not in given
    assert "modules_to_save" not in given
    assert given["r"] == given["lora_alpha"] == 8


def test_adalora_starts_at_the_rank_and_ends_at_two_thirds_of_it() -> None:
    made = methods.adalora(keys(method="adalora"), None)  # PEFT's defaults: 12 and 8
    assert (made["init_r"], made["target_r"]) == (12, 8)


def test_a_tied_tensor_is_not_in_the_checkpoint() -> None:
    class Model:
        config = SimpleNamespace(tie_word_embeddings=True)
        all_tied_weights_keys = {"head": "embed"}  # noqa: RUF012

        def state_dict(self) -> dict[str, int]:
            return {"embed": 1, "head": 1}

    assert checkpoint.checkpoint_tensors(Model()) == {"embed": 1}
    Model.config.tie_word_embeddings = False
    assert set(checkpoint.checkpoint_tensors(Model())) == {"embed", "head"}


def test_shards_hold_at_most_eight_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"a": 3 << 30, "b": 4 << 30, "c": 9 << 30, "d": 1 << 30}
    tensors = {name: SimpleNamespace(nbytes=n) for name, n in sizes.items()}
    assert [list(shard) for shard in checkpoint.split(tensors)] == [["a", "b"], ["c"], ["d"]]


def test_a_refusal_is_one_line() -> None:
    text = describe(ValueError("a\n  b" + "x" * 10_000))
    assert text.startswith("ValueError: a b")
    assert len(text) == MAX_TEXT
