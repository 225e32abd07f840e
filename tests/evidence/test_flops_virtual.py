"""What memplan counts of a micro batch against torch's own counter, run on the virtual GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memplan.evidence.virtual.environment import require
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import load_device
from memplan.running import Run
from memplan.trade_offs import flops
from memplan.workload import Workload

MODEL = {
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 999,
}


@pytest.mark.virtual
@pytest.mark.parametrize(
    "keys",
    [
        {"method": "lora", "target_modules": "all-linear"},
        {"method": "prompt_tuning", "activation_checkpointing": True},
        {"method": "full", "attention": "eager"},
    ],
)
def test_the_count_is_torch_s_own(keys: dict[str, Any]) -> None:
    workload: dict[str, Any] = {"model": MODEL, "gpu": "a10g", "seq_len": 77, **keys}
    environment = require()
    variables = environment_variables(environment, load_device("a10g"))
    script = Path(__file__).with_name("count_flops.py")
    done = subprocess.run(
        [str(environment.python), str(script), json.dumps(workload)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == list(flops(Run.of(Workload(**workload))))
