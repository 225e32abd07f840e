"""A small model with a method applied, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memplan.engine.kernels import Kernels
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.models.config import load_model_config
from memplan.training import prepare, train
from memplan.workload import Workload

GIB = 1 << 30
LAYERS, HIDDEN, HEADS, KEY_VALUE_HEADS, HEAD, MLP, VOCABULARY = 2, 96, 6, 2, 16, 200, 777
MODEL = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "vocab_size": VOCABULARY,
}


@contextmanager
def adapted(*, model: dict[str, Any] | None = None, **keys: Any) -> Iterator[tuple[Module, Tape]]:
    """The small model, adapted, and the tape of what that took."""
    workload = Workload(model={**MODEL, **(model or {})}, **keys)
    config = load_model_config(workload.model)
    with run(Tape(), Kernels()) as tape:
        yield prepare(workload, config, Depth.unrolled(config.num_hidden_layers), 80 * GIB), tape


def forward_blocks(**keys: Any) -> list[int]:
    """What the first forward allocates, its batch included. [bytes]"""
    workload = Workload(model=MODEL, steps=1, loop="plain", **keys)
    config = load_model_config(workload.model)
    with run(Tape(), Kernels()) as tape:
        train(workload, config, Depth.unrolled(config.num_hidden_layers), 1)
        ends = {p.name: p.end for p in tape.phases}
        return [e for e in tape.events[ends["optimizer_init"] : ends["forward"]] if e > 0]


def adapter_blocks(tape: Tape) -> list[int]:
    """What applying the method allocated, in order. [bytes]"""
    load, adapter = tape.phases
    return [e for e in tape.events[load.end : adapter.end] if e > 0]


def trainable(model: Module) -> list[str]:
    """Qualified names of the parameters that train."""
    return [name for name, _, _, p in model.named_parameters() if p.requires_grad]
