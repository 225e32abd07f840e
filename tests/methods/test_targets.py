from __future__ import annotations

import pytest

from memplan.errors import ConfigError
from memplan.methods.targets import Targets, is_saved
from memplan.workload import PEFT_TARGETS, Workload

LAYER = "model.layers.11.self_attn.q_proj"


def lora(peft_config: dict[str, object], target_modules: str | None = None) -> Workload:
    return Workload(
        model="7b", method="lora", peft_config=peft_config, target_modules=target_modules
    )


def test_default_targets_are_the_query_and_value_projections() -> None:
    targets = Targets.of(Workload(model="7b", method="lora"))
    assert targets.modules == PEFT_TARGETS
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


def test_layers_to_transform_keep_the_rest_as_it_is() -> None:
    targets = Targets.of(lora({"layers_to_transform": [0, 11]}))
    assert targets.matches("model.layers.11.self_attn.q_proj", is_linear=True)
    assert not targets.matches("model.layers.1.self_attn.q_proj", is_linear=True)
    assert not targets.matches("lm_head", is_linear=True)


def test_layer_zero_is_a_layer() -> None:
    targets = Targets.of(lora({"layers_to_transform": 0, "layers_pattern": "layers"}))
    assert targets.matches("model.layers.0.self_attn.v_proj", is_linear=True)
    assert not targets.matches("model.layers.1.self_attn.v_proj", is_linear=True)


@pytest.mark.parametrize("excluded", [["q_proj"], r".*q_proj"])
def test_excluded_modules_are_not_adapted(excluded: object) -> None:
    targets = Targets.of(lora({"exclude_modules": excluded}))
    assert not targets.matches(LAYER, is_linear=True)
    assert targets.matches("model.layers.11.self_attn.v_proj", is_linear=True)


def test_a_rank_pattern_matches_the_end_of_a_name() -> None:
    targets = Targets.of(lora({"rank_pattern": {"layers.11.self_attn.q_proj": 3, "v_proj": 5}}))
    assert targets.rank(LAYER, 8) == 3
    assert targets.rank("model.layers.1.self_attn.q_proj", 8) == 8
    assert targets.rank("model.layers.1.self_attn.v_proj", 8) == 5


@pytest.mark.parametrize(
    ("peft_config", "problem"),
    [
        ({"layers_to_transform": [-1]}, "layers_to_transform"),
        ({"layers_to_transform": "all"}, "layers_to_transform"),
        ({"layers_pattern": "layers"}, "needs layers_to_transform"),
        ({"rank_pattern": ["q_proj"]}, "expected a mapping"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
        ({"rank_pattern": {"(": 4}}, "regular expression"),
        ({"exclude_modules": 4}, "exclude_modules"),
    ],
)
def test_selectors_that_peft_cannot_use_are_refused(
    peft_config: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        lora(peft_config)


def test_layers_to_transform_goes_with_a_list_of_targets_only() -> None:
    with pytest.raises(ConfigError, match="goes with a list"):
        lora({"layers_to_transform": [0]}, target_modules="all-linear")
