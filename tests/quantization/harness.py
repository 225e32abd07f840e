"""A small model on the meta device, and what loading it records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.engine.kernels import Kernels
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.models.catalogue import build_model
from memplan.models.config import load_model_config
from memplan.workload import Workload

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": 128,
    "intermediate_size": 200,
    "vocab_size": 997,
    "tie_word_embeddings": False,
}


def model_of(depth: Depth | None = None, dtype: str = "bfloat16", **keys: Any) -> Module:
    """A model without memory. Depth: of the layers that are built."""
    config = load_model_config(CONFIG | keys)
    workload = Workload(model=CONFIG | keys, dtype=dtype)
    return build_model(config, workload, depth or Depth.unrolled(config.num_hidden_layers))


def recorded(act: Callable[[], Any]) -> tuple[Tape, Any]:
    """The tape of an action on an A100, and what it returns. The tape ends with the action."""
    tape = Tape()
    with run(tape, Kernels()):
        out = act()
        tape.events = tape.events[:]
    return tape, out


def allocations(tape: Tape) -> list[int]:
    """The sizes that were asked for. [bytes]"""
    return [e for e in tape.events if e > 0]


def live(tape: Tape) -> list[int]:
    """The blocks that are left. [bytes]"""
    freed = {~e for e in tape.events if e < 0}
    return [e for i, e in enumerate(tape.events) if e > 0 and i not in freed]
