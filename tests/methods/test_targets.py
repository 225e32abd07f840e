from __future__ import annotations

import pytest

from memplan.methods.targets import DEFAULT_TARGETS, Targets, is_saved
from memplan.workload import Workload

LAYER = "model.layers.11.self_attn.q_proj"


def test_default_targets_are_the_query_and_value_projections() -> None:
    targets = Targets.of(Workload(model="7b", method="lora"))
    assert targets.modules == DEFAULT_TARGETS
    assert targets.matches("model.layers.0.self_attn.v_proj", is_linear=True)
    assert not targets.matches("model.layers.0.self_attn.k_proj", is_linear=True)


def test_a_name_matches_itself_or_what_ends_with_a_dot_and_it() -> None:
    targets = Targets(("q_proj", "lm_head"))
    assert targets.matches("lm_head", is_linear=True)
    assert targets.matches(LAYER, is_linear=True)
    assert not targets.matches("model.layers.11.self_attn.my_q_proj", is_linear=True)


def test_all_linear_leaves_the_head_and_the_embedding() -> None:
    targets = Targets("all-linear")
    assert targets.matches(LAYER, is_linear=True)
    assert not targets.matches("lm_head", is_linear=True)
    assert not targets.matches("model.embed_tokens", is_linear=False)


@pytest.mark.parametrize(("index", "matched"), [(1, True), (11, False), (21, False)])
def test_a_pattern_must_match_in_full(index: int, matched: bool) -> None:
    targets = Targets(r".*layers\.[0-3]\..*q_proj")
    assert targets.matches(f"model.layers.{index}.self_attn.q_proj", is_linear=True) is matched


def test_nothing_within_a_module_to_save_is_adapted() -> None:
    targets = Targets("all-linear", saved=("mlp",))
    assert not targets.matches("model.layers.0.mlp.up_proj", is_linear=True)
    assert targets.matches("model.layers.0.self_attn.o_proj", is_linear=True)


def test_modules_to_save_need_no_dot_before_their_name() -> None:
    assert is_saved("model.layers.0.input_layernorm", ("norm",))
    assert is_saved("model.norm", ("norm",))
    assert not is_saved("model.layers.0.mlp", ("norm",))
