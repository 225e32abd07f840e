"""What the byte engine takes, apart from what a workload may say."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.combinations import METHOD_KEYS, takers
from memplan.coverage import modelled_value, require_modelled, why_not_modelled
from memplan.errors import ConfigError, UnsupportedError
from memplan.method_table import ROWS, Method
from memplan.vocabulary import CHOICES
from memplan.workload import Workload


def make(**keys: Any) -> Workload:
    return Workload.resolve(model="7b", **keys)[0]


NEEDED = {"psoft": {"use_cayley_neumann": True}}


@pytest.mark.parametrize("method", CHOICES["method"].modelled)
def test_a_modelled_workload_has_nothing_against_it(method: str) -> None:
    options = {"peft_config": NEEDED[method]} if method in NEEDED else {}
    assert why_not_modelled(make(method=method, **options)) is None
    require_modelled(make(method=method, **options))


def test_equations_solved_in_each_forward_are_for_the_virtual_engine() -> None:
    assert "use_cayley_neumann" in (why_not_modelled(make(method="psoft")) or "")
    assert why_not_modelled(make(method="psoft", peft_config={"psoft_orth": False})) is None


def test_a_value_that_is_equal_and_not_the_same_is_not_modelled() -> None:
    ok, off = {"use_dora": False}, {"use_dora": 0}
    assert why_not_modelled(make(method="lora", peft_config=ok)) is None
    assert why_not_modelled(make(method="lora", peft_config=off)) == (
        "peft_config: use_dora: 0 is not modelled; False, True is."
    )


def test_one_value_alone_can_be_asked_for() -> None:
    assert modelled_value("method", "lora") == "lora"
    assert modelled_value("rank", 8) == 8
    with pytest.raises(UnsupportedError, match="poly' is not modelled yet"):
        modelled_value("method", "poly")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_workload_takes_every_method(row: Method) -> None:
    workload = make(method=row.name)
    assert workload.rank == (row.rank or 8)


def test_a_rank_that_is_given_stays() -> None:
    assert make(method="vera", rank=8).rank == 8
    assert make(method="VeRA").rank == 256


def test_peft_s_other_words_are_its_own_business() -> None:
    assert make(method="oft", peft_config={"oft_block_size": 64}).peft_config
    with pytest.raises(ConfigError, match="unknown peft_config key"):
        make(method="lora", peft_config={"oft_block_size": 64})


def test_a_key_names_the_methods_that_take_it() -> None:
    assert takers("rank") == "lora and rslora and dora and 24 more"
    assert takers("num_virtual_tokens").startswith("prompt_tuning and ")
    assert set().union(*METHOD_KEYS.values()) <= {row.name for row in ROWS}
