"""The training run: load, adapt, make the optimizer, then step by step, as the loop does it.

``plain`` is the loop that a user writes, ``trainer`` transformers' own. Local variables live as
long here as there; the order in which they are assigned decides which block is free when the next
one is asked for.
"""

from __future__ import annotations

from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.models.config import ModelConfig
from memplan.training.plain import Loop
from memplan.training.setup import prepare
from memplan.training.trainer import Trainer
from memplan.workload import Workload

LOOPS: dict[str, type[Loop | Trainer]] = {"plain": Loop, "trainer": Trainer}

__all__ = ["LOOPS", "Loop", "Trainer", "prepare", "train"]


def train(
    workload: Workload,
    config: ModelConfig,
    depth: Depth,
    steps: int,
    total_memory: int | None = None,
    micro_steps: int | None = None,
) -> Module:
    """Run the workload on this thread's tape; the trained model.

    Args:
        workload: What is to be run.
        config: Its model's.
        depth: Layers that are built.
        steps: Optimizer steps.
        total_memory: What the device says it has, or unknown. [bytes]
        micro_steps: Micro batches of a step that are run; by default all.
    """
    model: Module = prepare(workload, config, depth, total_memory)
    params = [p for p in model.parameters() if p.requires_grad]
    micro_steps = micro_steps or workload.gradient_accumulation_steps
    LOOPS[str(workload.loop)](workload, model, params, micro_steps).run(steps)
    return model
