"""Parameters, all and trainable, against PEFT's own count for every preset and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.engine.kernels import Kernels
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.engine.tensor import numel
from memplan.methods.catalogue import apply_method
from memplan.models.catalogue import build_model
from memplan.models.config import load_model_config
from memplan.workload import Workload
from tests.methods.cases import CASES

RECORDED: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("parameter_counts.json").read_text()
)["presets"]


def model(preset: str, case: dict[str, Any]) -> Module:
    """The adapted model, without memory."""
    workload = Workload(model=preset, **case)
    config = load_model_config(preset)
    built = build_model(config, workload, Depth.unrolled(config.num_hidden_layers))
    return apply_method(built, workload)


@pytest.mark.parametrize("preset", RECORDED)
def test_counts_are_those_of_peft(preset: str) -> None:
    for name, case in CASES.items():
        with run(Tape(), Kernels()):
            params = list(model(preset, case).parameters())
            counts = [sum(numel(p.shape) for p in params)]
            counts.append(sum(numel(p.shape) for p in params if p.requires_grad))
        assert counts == RECORDED[preset][name], name
