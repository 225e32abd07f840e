"""Names, shapes and order of the parameters against the models that transformers builds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from memplan.engine.kernels import Kernels
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.engine.tensor import numel
from memplan.models.catalogue import build_model
from memplan.models.config import ModelConfig, load_model_config
from memplan.models.presets import preset_names
from memplan.workload import Workload

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "evidence" / "parameter_counts.json").read_text()
)


def parameters(config: ModelConfig, depth: Depth) -> list[tuple[str, tuple[int, ...], int]]:
    """(name, shape, layers that it stands for) of every parameter."""
    with run(Tape(), Kernels()):
        model = build_model(config, Workload(model=config.name), depth)
        return [(name, p.shape, p.copies) for name, _, _, p in model.named_parameters()]


def digest(named: list[tuple[str, tuple[int, ...], int]]) -> str:
    lines = (f"{name} {list(shape)}\n" for name, shape, _ in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", preset_names())
def test_preset_has_the_parameters_of_transformers_in_their_order(name: str) -> None:
    config = load_model_config(name)
    named = parameters(config, Depth.unrolled(config.num_hidden_layers))
    recorded = RECORDED["presets"][name]
    assert sum(numel(shape) for _, shape, _ in named) == recorded["num_parameters"]
    assert len(named) == recorded["num_tensors"]
    assert digest(named) == recorded["digest"]


@pytest.mark.parametrize("name", RECORDED["odd"])
def test_odd_config_has_the_parameters_of_transformers_in_their_order(name: str) -> None:
    recorded = RECORDED["odd"][name]
    config = load_model_config(recorded["config"])
    named = parameters(config, Depth.unrolled(config.num_hidden_layers))
    assert digest(named) == recorded["digest"]


@pytest.mark.parametrize("name", ["llama-2-70b", "qwen3-4b", "qwen2.5-0.5b"])
def test_representatives_stand_for_all_parameters(name: str) -> None:
    config = load_model_config(name)
    named = parameters(config, Depth.representative(config.num_hidden_layers))
    total = sum(numel(shape) * copies for _, shape, copies in named)
    assert total == RECORDED["presets"][name]["num_parameters"]
