"""Five layers that stand for all give what all of them give, for every method and both loops."""

from __future__ import annotations

from typing import Any

import pytest

from memplan import running
from memplan.errors import ConfigError
from memplan.estimate import estimate
from memplan.results import Estimate
from memplan.vocabulary import CHOICES
from tests.methods.models import MODEL

DEEP = {**MODEL, "num_hidden_layers": 9}
NEEDED: dict[str, dict[str, Any]] = {
    "trainable_tokens": {"peft_config": {"token_indices": [0, 1, 2]}},
    "vblora": {"peft_config": {"vector_length": 32}},
    "road": {"peft_config": {"group_size": 16}},
    "psoft": {"peft_config": {"use_cayley_neumann": True}},
    "bitfit": {"model": {**DEEP, "model_type": "qwen2"}},
}


def numbers(found: Estimate) -> tuple[Any, ...]:
    peaks = (found.peak_requested_bytes, found.peak_allocated_bytes, found.peak_reserved_bytes)
    told = (found.parameters, found.checkpoint_bytes, dict(found.breakdown_at_peak))
    return (*peaks, found.phases, *told)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["trainer", "plain"])
@pytest.mark.parametrize("method", CHOICES["method"].modelled)
def test_representatives_stand_for_all_layers(
    method: str, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"model": DEEP, "method": method, "loop": loop, "seq_len": 24, "steps": 2}
    keys |= NEEDED.get(method, {})
    try:
        few = numbers(estimate(**keys))
    except ConfigError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(running, "is_uniform", lambda workload, config: False)
    assert numbers(estimate(**keys)) == few


@pytest.mark.parametrize("more", [{"kernels": "liger"}, {"loss": "fused_linear"}])
@pytest.mark.parametrize("loop", ["trainer", "plain"])
def test_so_do_they_with_liger(
    more: dict[str, Any], loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"model": DEEP, "method": "lora", "loop": loop, "seq_len": 24, "steps": 2, **more}
    few = numbers(estimate(**keys))
    monkeypatch.setattr(running, "is_uniform", lambda workload, config: False)
    assert numbers(estimate(**keys)) == few
