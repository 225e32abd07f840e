from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memplan.evidence.runner.launch import importable
from memplan.evidence.virtual import environment
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import load_device

pytestmark = pytest.mark.virtual
SCRIPT = Path(__file__).parent / "watched_training.py"


def run(kind: str, gpu: str) -> dict[str, Any]:
    env = environment.find()
    if env is None:
        pytest.skip(environment.SET_UP)
    with importable() as path:
        variables = environment_variables(env, load_device(gpu), inherited=os.environ)
        done = subprocess.run(
            [str(env.python), str(SCRIPT), kind], capture_output=True, text=True, timeout=600,
            env={**os.environ, **variables, "PYTHONPATH": path},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("gpu", ["a10g", "h100-80gb"])
def test_measured_peaks_of_a_plain_loop_are_the_predicted_ones(gpu: str) -> None:
    told = run("plain", gpu)
    assert len(told["lines"]) == 3
    assert told["lines"][2].count("+0.0 %") == 3
    assert told["peak"] == max(told["predicted"].values())


def test_the_trainer_takes_the_callback() -> None:
    told = run("trainer", "a10g")
    assert [line.split(",")[0] for line in told["lines"]] == ["memplan: step 1", "memplan: step 2"]


def test_an_error_of_memory_is_explained_and_comes_through() -> None:
    told = run("oom", "a10g")
    assert told["error"] == "OutOfMemoryError"
    text = "\n".join(told["lines"])
    assert "out of memory in step 1, forward" in text
    assert "activation_checkpointing=True saves" in text
