"""``loop: plain``: forward, loss, backward, step, as a user writes it.

The statements are those of ``memplan.evidence.runner.loops.train_plain``.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import DTYPES, FP16, INT64
from memplan.engine import S, Tensor, autocast, backward, empty
from memplan.engine.nn import Module
from memplan.engine.ops.pointwise import scale
from memplan.optimizers import optimizer_of
from memplan.optimizers.clip import clip_grad_norm
from memplan.optimizers.grad_scaler import GradScaler
from memplan.workload import Workload


class Loop:
    """The loop's variables that live from one step to the next."""

    def __init__(
        self, workload: Workload, model: Module, params: list[Tensor], micro_steps: int
    ) -> None:
        self.workload, self.model, self.params = workload, model, params
        self.micro_steps = micro_steps
        self.optimizer = optimizer_of(workload)(params)
        if self.optimizer is not None:
            self.optimizer.look_into(model)
        self.autocast = DTYPES.get(workload.autocast)
        self.scaler = GradScaler() if self.autocast is FP16 else None
        self.ids: Tensor | None = None
        self.batch: dict[str, Tensor] = {}
        self.outputs: Any = None
        self.loss: Tensor | None = None

    def run(self, steps: int) -> None:
        """Every step."""
        S.tape.end_phase("optimizer_init")
        for step in range(steps):
            self.step(step)

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
