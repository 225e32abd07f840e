from __future__ import annotations

from typing import Any

from memplan.dtypes import FP32, INT8
from memplan.engine.nn import Module
from memplan.engine.tape import EMPTY_CACHE, Tape
from memplan.loading import load
from memplan.quantization import prepare_model_for_kbit_training
from memplan.workload import Workload
from tests.quantization.harness import model_of, recorded


def prepared(quantization: str = "int8", **keys: Any) -> tuple[Tape, Module]:
    def act() -> Module:
        model = model_of(**keys)
        load(model, quantization)
        prepare_model_for_kbit_training(model)
        return model

    return recorded(act)


def test_every_parameter_is_frozen_and_the_16_bit_ones_become_fp32() -> None:
    _, model = prepared()
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {FP32, INT8}


def test_the_old_block_goes_only_when_the_new_one_is_there() -> None:
    tape, _ = prepared()
    after = tape.events[-14:]  # embedding, two norms of each of two layers, the last norm, head
    assert [e > 0 for e in after] == [True, False] * 7
    assert after[0] == 997 * 128 * 4


def test_a_tied_head_is_cast_once() -> None:
    tape, _ = prepared(tie_word_embeddings=True)
    assert sum(e == 997 * 128 * 4 for e in tape.events) == 1


def test_the_cache_is_emptied_after_the_casts() -> None:
    tape, _ = prepared()
    assert [(p.end, p.name) for p in tape.phases] == [(len(tape.events), EMPTY_CACHE)]


def test_frozen_models_are_not_prepared() -> None:
    assert Workload(model="7b", method="lora", quantization="nf4").prepares_kbit
    assert not Workload(model="7b", method="frozen", quantization="nf4").prepares_kbit


def test_adapters_of_the_head_are_made_in_its_new_dtype() -> None:
    _, model = prepared()
    head = model.lm_head  # type: ignore[attr-defined]
    assert head.compute_dtype is FP32
