from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes
from memplan.engine.kernels import Kernels
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.errors import ConfigError
from memplan.models.config import load_model_config
from memplan.training import train
from memplan.workload import Workload
from tests.methods.models import HEAD, HIDDEN, KEY_VALUE_HEADS, LAYERS, MODEL, trainable

Json = dict[str, Any]
KV = KEY_VALUE_HEADS * HEAD
RANK = 4
KEYS: Json = {"model": MODEL, "method": "lora_fa", "rank": RANK, "loop": "plain"}
KEYS |= {"target_modules": ["v_proj"]}


def first_step(**keys: object) -> tuple[list[str], int, list[int]]:
    """What trains, the checkpoint's bytes, and the blocks that the first update makes."""
    workload = Workload(**{**KEYS, "seq_len": 16, "steps": 1, "max_grad_norm": 0, **keys})
    config = load_model_config(workload.model)
    with run(Tape(), Kernels()) as tape:
        model = train(workload, config, Depth.unrolled(config.num_hidden_layers), 1)
        ends = {p.name: p.end for p in tape.phases}
        events = tape.events[ends["backward"] : ends["optimizer_step"]]
        return trainable(model), checkpoint_bytes(model, "lora_fa"), [e for e in events if e > 0]


def test_a_is_frozen_and_saved() -> None:
    names, saved, _ = first_step()
    assert [name.split(".")[-2] for name in names] == ["lora_B"] * LAYERS
    assert saved == 4 * RANK * (HIDDEN + KV) * LAYERS


def test_a_step_makes_two_moments_of_b_and_inverts_a_matrix_of_the_rank() -> None:
    _, _, blocks = first_step()
    moment, square, half = 4 * KV * RANK, 4 * RANK * RANK, 2 * KV * RANK
    assert blocks[:3] == [moment, moment, square]
    # A A.T; the identity, its multiple, the sum; U, V and the copy; V times S, the inverse
    assert blocks.count(square) == 9 * LAYERS
    # the gradient, its product, its multiple in bfloat16; then in the gradient's dtype
    assert blocks.count(half) == 3 * LAYERS
    assert blocks.count(moment) == 4 * LAYERS  # and the root of the second moment


def test_what_else_trains_is_updated_as_by_adamw() -> None:
    _, _, blocks = first_step(modules_to_save=["norm"])
    norms = 2 * LAYERS + 1  # PEFT matches the end of a name, dot or not
    assert blocks.count(2 * HIDDEN) == 3 * norms


def test_the_optimizer_is_the_methods_own() -> None:
    assert first_step(optimizer="sgd")[2] == first_step()[2]
    names, _, _ = first_step(optimizer="none")
    assert len(names) == 2 * LAYERS


@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_bias": True}])
def test_adapters_of_more_than_two_tensors_are_refused(config: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="two by two"):
        Workload(**KEYS, peft_config=config)


def test_several_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match="two by two"):
        Workload(**KEYS, adapters=2)
