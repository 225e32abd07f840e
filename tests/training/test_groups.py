"""The Trainer's two groups of parameters."""

from __future__ import annotations

from typing import Any

from memplan.engine import S, empty
from memplan.engine.nn import Embedding, Module
from memplan.optimizers.bnb import Bnb
from memplan.training.groups import build_optimizer, decay_groups
from memplan.workload import Workload
from tests.methods.models import HIDDEN, MODEL, VOCABULARY, adapted


def names(model: Module, group: list[Any]) -> list[str]:
    by_id = {id(p): name for name, _, _, p in model.named_parameters()}
    return [by_id[id(p)].rpartition("layers.")[2] for p in group]


def test_norms_and_biases_do_not_decay() -> None:
    with adapted(model={"model_type": "qwen3", "attention_bias": True}) as (model, _):
        decays, rest = (names(model, group) for group in decay_groups(model))
    assert {n.split(".")[-2] for n in rest if n.startswith("0.") and n.endswith("weight")} == {
        *("q_norm", "k_norm", "input_layernorm", "post_attention_layernorm")
    }
    assert all(n.endswith("weight") and "norm" not in n for n in decays)
    assert "0.self_attn.q_proj.bias" in rest
    assert "model.norm.weight" in rest


def test_adapters_decay_in_the_model_s_order() -> None:
    with adapted(method="lora") as (model, _):
        decays, rest = decay_groups(model)
        trained = [p for p in model.parameters() if p.requires_grad]
    assert decays == trained
    assert rest == []


def stepped(**keys: Any) -> list[int]:
    """What the first step of an optimizer allocates over the whole small model. [bytes]"""
    workload = Workload(model=MODEL, loop="trainer", **keys)
    with adapted(method=workload.method) as (model, tape):
        params = [p for p in model.parameters() if p.requires_grad]
        optimizer = build_optimizer(workload, model, params, lambda: None)
        for p in params:
            p.grad = empty(p.shape, p.dtype)
        start = len(tape.events)
        optimizer.step()
        S.tape.finish()
        return [e for e in tape.events[start:] if e > 0]


def test_the_states_of_what_decays_come_first() -> None:
    made = stepped(optimizer="sgd_momentum")  # a user's own: one group
    assert made[-2] == HIDDEN * 2  # model.norm, before lm_head
    made = stepped(optimizer="adamw_foreach")
    assert made.index(HIDDEN * 2) > made.index(VOCABULARY * HIDDEN * 2)


def test_embeddings_keep_32_bits_in_8_bit_optimizers() -> None:
    full = VOCABULARY * HIDDEN * 4
    assert stepped(optimizer="adamw_8bit").count(full) == 2
    assert stepped(optimizer="lion_8bit").count(full) == 1
    own = {"optimizer": "adamw_8bit", "optim_args": {"min_8bit_size": 16}}
    assert stepped(**own).count(full) == 0  # the Trainer takes no such argument


def test_only_weights_of_embeddings_are_overridden() -> None:
    workload = Workload(model=MODEL, loop="trainer", optimizer="adamw_8bit")
    with adapted() as (model, _):
        params = list(model.parameters())
        inner = build_optimizer(workload, model, params, lambda: None).inner
        assert isinstance(inner, Bnb)
        embeddings = [m for m in model.modules() if isinstance(m, Embedding)]
        assert inner.in_full == {m.weight for m in embeddings}
