"""The training run: load, adapt, make the optimizer, then step by step.

``loop: plain``. Local variables live as long here as in the loop that a user writes; the order in
which they are assigned decides which block is free when the next one is asked for.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import DTYPES, FP16, INT64
from memplan.engine import S, Tensor, autocast, backward, empty
from memplan.engine.nn import Module
from memplan.engine.ops.pointwise import scale
from memplan.engine.repeat import Depth
from memplan.loading import load
from memplan.methods.catalogue import apply_method
from memplan.models.catalogue import build_model
from memplan.models.config import ModelConfig
from memplan.optimizers import OPTIMIZERS
from memplan.optimizers.clip import clip_grad_norm
from memplan.optimizers.grad_scaler import GradScaler
from memplan.quantization import prepare_model_for_kbit_training
from memplan.workload import Workload


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
    loop = Loop(workload, model, params, micro_steps or workload.gradient_accumulation_steps)
    S.tape.end_phase("optimizer_init")
    for step in range(steps):
        loop.step(step)
    return model


def prepare(workload: Workload, config: ModelConfig, depth: Depth, total_memory: int | None) -> Any:
    """The model, loaded and adapted."""
    model = build_model(config, workload, depth)
    load(model, workload.quantization, total_memory)
    S.tape.end_phase("load")
    if workload.prepares_kbit:
        prepare_model_for_kbit_training(model)
    apply_checkpointing(model, workload)
    adapted = apply_method(model, workload)
    S.tape.watch(model)
    S.tape.end_phase("adapter")
    return adapted


def apply_checkpointing(model: Any, workload: Workload) -> None:
    """``gradient_checkpointing_enable``, which always asks for input gradients.

    Source: huggingface/transformers v5.18.0 modeling_utils.py ``gradient_checkpointing_enable``.
    """
    if workload.activation_checkpointing:
        model.model.checkpointing = workload.activation_checkpointing == "reentrant"
        model.enable_input_require_grads()


class Loop:
    """The loop's variables that live from one step to the next."""

    def __init__(
        self, workload: Workload, model: Module, params: list[Tensor], micro_steps: int
    ) -> None:
        self.workload, self.model, self.params = workload, model, params
        self.micro_steps = micro_steps
        self.optimizer = OPTIMIZERS[workload.optimizer](params)
        self.autocast = DTYPES.get(workload.autocast)
        self.scaler = GradScaler() if self.autocast is FP16 else None
        self.ids: Tensor | None = None
        self.batch: dict[str, Tensor] = {}
        self.outputs: Any = None
        self.loss: Tensor | None = None

    def step(self, step: int) -> None:
        """One optimizer step."""
        for _ in range(self.micro_steps):
            self.micro_step(step)
        self.update()
        S.tape.end_phase("optimizer_step", step)
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        S.tape.end_phase("zero_grad", step)

    def micro_step(self, step: int) -> None:
        """Forward, loss, backward of one micro batch."""
        self.next_batch()
        with autocast(self.autocast):
            self.outputs = self.model(**self.batch)
            self.loss = self.outputs[0]
        if not self.workload.keep_outputs:
            self.outputs = None
        self.loss = scale(self.loss)  # loss / gradient_accumulation_steps
        S.tape.end_phase("forward", step)
        if self.loss.requires_grad:
            backward(self.scaler.scale(self.loss) if self.scaler else self.loss)
        S.tape.end_phase("backward", step)

    def next_batch(self) -> None:
        """The batch on the device: the old one's tensors go as their names are assigned."""
        shape = self.workload.micro_batch_size, self.workload.seq_len
        self.ids = empty(shape, INT64)
        self.batch = {"input_ids": self.ids}
        self.batch["labels"] = empty(shape, INT64)
        if self.workload.attention_mask != "none":
            self.batch["attention_mask"] = empty(shape, INT64)

    def update(self) -> None:
        """Clip and step."""
        if self.workload.max_grad_norm:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            clip_grad_norm(self.params)
        if self.optimizer is None:
            return
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
