"""In which order a model's parameters reach the device."""

from __future__ import annotations

import random
from typing import Any

import pytest

import memplan
from memplan import loading
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.engine.tape import Tape
from memplan.loading import load, natural_key
from tests.quantization.harness import CONFIG, allocations, model_of, recorded

GIB = 1 << 30
H, I, KV, V = 128, 200, 64, 997  # noqa: E741 - hidden, intermediate, key/value width, vocabulary
LAYER = [H, I * H, I * H, I * H, H, KV * H, H * H, H * H, KV * H]  # norms, mlp, attention by name


def loaded(quantization: str = "none", total: int | None = None, **keys: Any) -> Tape:
    def act() -> Module:
        model = model_of(**keys)
        load(model, quantization, total)
        return model

    return recorded(act)[0]


def test_a_warm_up_block_comes_first_then_parameters_by_name_then_the_rotary_buffers() -> None:
    sizes = allocations(loaded())
    parameters = [V * H, V * H, *LAYER, *LAYER, H]
    assert sizes == [2 * sum(parameters), *(2 * n for n in parameters), 4 * 32, 4 * 32]


def test_a_tied_head_is_not_in_the_checkpoint() -> None:
    sizes = allocations(loaded(tie_word_embeddings=True))
    assert sizes.count(2 * V * H) == 1


def test_the_tenth_layer_comes_after_the_ninth() -> None:
    names = ["model.layers.10.mlp", "model.layers.9.mlp", "lm_head.weight", "model.norm"]
    assert sorted(names, key=natural_key) == [names[2], names[1], names[0], names[3]]


def test_packed_weights_count_half_a_byte_or_one_in_the_warm_up() -> None:
    linear = 2 * sum(n for n in LAYER if n != H)
    rest = 2 * (2 * V * H + 5 * H)
    assert allocations(loaded("nf4"))[0] == rest + linear // 2
    assert allocations(loaded("int8"))[0] == rest + linear


def test_the_warm_up_leaves_room_on_a_small_card() -> None:
    total = int(1.2 * GIB) + 10_001
    assert allocations(loaded(total=total))[0] == 10_000
    assert allocations(loaded(total=80 * GIB))[0] == allocations(loaded())[0]


def test_the_warm_up_is_of_all_layers_where_a_few_stand_for_them() -> None:
    def act() -> Module:
        model = model_of(Depth.representative(40), num_hidden_layers=40)
        load(model)
        return model

    tape, _ = recorded(act)
    assert allocations(tape)[0] == 2 * (40 * sum(LAYER) + 2 * V * H + H)


def test_every_allocation_belongs_to_its_layer() -> None:
    tape = loaded("nf4-dq")
    entered = [layer for event, layer in tape.layers if event]
    assert entered == [0, -1, 0, 1, -1]  # the code of statistics is made once a process


@pytest.mark.parametrize("width", [64, 128, 772])
def test_threads_that_overtake_each_other_ask_for_and_get_the_same(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def phases() -> list[tuple[int, ...]]:
        model = CONFIG | {"hidden_size": width, "vocab_size": 5003}
        e = memplan.estimate(model=model, seq_len=200, gpu="a10g")
        kinds = ("requested_bytes", "allocated_bytes")
        columns = (*kinds, *(f"peak_{kind}" for kind in kinds))
        return [tuple(getattr(phase, c) for c in columns) for phase in e.phases.values()]

    in_order, rng = phases(), random.Random(width)
    monkeypatch.setattr(loading, "natural_key", lambda name: rng.random())
    assert all(phases() == in_order for _ in range(5))
