"""``loop: trainer``: transformers' Trainer with accelerate, on one device.

It differs from a loop that a user writes in what it adds: the tokens of a step are counted on the
device and divide the loss, autocast wraps the model and casts what it returns up to fp32, the loss
is divided and multiplied by one, checked, and added up, the norm of the gradients is always taken
and kept, and the optimizer has two groups of parameters. All batches of a step are fetched before
the first of them is used, and stay until those of the next step are there.

Phases end where ``memplan.evidence.recorder.hooks`` sees them end: the first batch still belongs to
``optimizer_init``, and what a GradScaler does after the optimizer's step to ``zero_grad``.

Source: huggingface/transformers v5.18.0 trainer.py, huggingface/accelerate v1.15.0 accelerator.py.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakMethod

from memplan.dtypes import BOOL, DTYPES, FP16, FP32
from memplan.engine import S, Tensor, autocast, backward, empty
from memplan.engine.nn import Module
from memplan.engine.ops.arithmetic import mul_
from memplan.engine.ops.pointwise import scale, to
from memplan.engine.ops.views import detach
from memplan.models.llama import LlamaForCausalLM
from memplan.optimizers.clip import clip_grad_norm
from memplan.optimizers.grad_scaler import GradScaler
from memplan.training.batches import Batch, Batches, count_items
from memplan.training.evaluation import evaluate
from memplan.training.groups import build_optimizer
from memplan.training.saving import save
from memplan.workload import Workload


class Trainer:
    """The Trainer's variables that live from one step to the next.

    Attributes:
        tr_loss: The losses so far, added up on the device.
    """

    def __init__(
        self, workload: Workload, model: Module, params: list[Tensor], micro_steps: int
    ) -> None:
        self.workload, self.model, self.params = workload, model, params
        self.micro_steps = micro_steps
        self.accumulation = workload.gradient_accumulation_steps
        self.causal_lm = next(m for m in model.modules() if isinstance(m, LlamaForCausalLM))
        end_update = WeakMethod(self.end_update)  # a cycle would keep every block until collected
        self.optimizer = build_optimizer(workload, model, params, lambda: called(end_update))
        self.autocast = DTYPES.get(workload.autocast)
        self.scaler = GradScaler() if self.autocast is FP16 else None
        self.dataloader = Batches(workload, workload.micro_batch_size)
        self.number = 0
        self.tr_loss: Tensor | None = None
        self.batch_samples: list[Batch] = []
        self.num_items_in_batch: Tensor | None = None
        self.inputs: Batch = {}
        self.tr_loss_step: Tensor | None = None
        self.grad_norm: Tensor | None = None

    def run(self, steps: int) -> None:
        """``_inner_training_loop``, which empties the cache first, and ``_run_epoch``."""
        S.tape.empty_cache()
        self.tr_loss = start_total()
        for step in range(steps):
            self.number = step
            self.step()
        self.end_epoch()

    def step(self) -> None:
        """One optimizer step; of its batches, the last few stand for all."""
        self.get_batch_samples()
        if not self.number:
            S.tape.end_phase("optimizer_init")
        for batch in self.batch_samples[-self.micro_steps :]:
            self.inputs = batch
            self.tr_loss_step = self.training_step(batch)
            is_finite(self.tr_loss_step)
        del batch
        self.update()
        self.zero_grad()

    def get_batch_samples(self) -> None:
        """Every micro batch of the step, and how many tokens their losses are over."""
        batch_samples = [self.dataloader.next_batch() for _ in range(self.accumulation)]
        num_items_in_batch = count_items(batch_samples)
        self.batch_samples = batch_samples
        self.num_items_in_batch = num_items_in_batch

    def training_step(self, inputs: Batch) -> Tensor:
        """Forward, loss, backward of one micro batch."""
        assert self.num_items_in_batch is not None
        loss, outputs = self.compute_loss(inputs, self.num_items_in_batch)
        del outputs
        self.backward(loss)
        return detach(loss)

    def compute_loss(self, inputs: Batch, num_items_in_batch: Tensor) -> tuple[Tensor, Any]:
        """The loss; ``average_tokens_across_devices`` multiplies it by the number of devices."""
        self.causal_lm.num_items_in_batch = num_items_in_batch
        outputs = self.forward(inputs)
        self.causal_lm.num_items_in_batch = None
        return mul_(outputs.loss), outputs

    def forward(self, inputs: Batch) -> Any:
        """The forward that accelerate puts in place of the model's: autocast, outputs in fp32."""
        with autocast(self.autocast):
            outputs = self.model(**inputs)
        return outputs if self.autocast is None else convert_to_fp32(outputs)

    def backward(self, loss: Tensor) -> None:
        """``Accelerator.backward``: it divides by its own accumulation steps, which are one."""
        loss = scale(loss)
        root = loss if self.scaler is None else self.scaler.scale(loss)
        S.tape.end_phase("forward", self.number)
        backward(root)
        S.tape.end_phase("backward", self.number)

    def update(self) -> None:
        """Take the norm, with or without clipping, and step."""
        self.grad_norm = None
        if self.scaler is None:
            self.grad_norm = clip_grad_norm(self.params)
            self.optimizer.step()
            return
        self.scaler.unscale_(self.optimizer)
        self.grad_norm = clip_grad_norm(self.params)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def end_epoch(self) -> None:
        """``_maybe_log_save_evaluate``: the variables of the last step are still there."""
        if self.workload.eval != "none":
            evaluate(self.workload, self.compute_loss)
            S.tape.end_phase("eval")
        if self.workload.save:
            save(self.model)
            S.tape.end_phase("save")

    def end_update(self) -> None:
        """The optimizer's own step is over."""
        S.tape.end_phase("optimizer_step", self.number)

    def zero_grad(self) -> None:
        """``model.zero_grad()``."""
        self.optimizer.zero_grad()
        S.tape.end_phase("zero_grad", self.number)


def called(method: WeakMethod[Any]) -> None:
    """Call a method whose object is there for as long as its run is."""
    bound = method()
    assert bound is not None
    bound()


def start_total() -> Tensor:
    """``torch.tensor(0.0, device)``."""
    return empty((), FP32)


def convert_to_fp32(outputs: Any) -> Any:
    """The outputs again, 16-bit ones cast up; the loss is fp32, and a cache is no tensor."""
    if outputs.logits is None:
        return outputs
    return outputs._replace(logits=to(outputs.logits, FP32))


def is_finite(loss: Tensor) -> None:
    """``logging_nan_inf_filter``: ``torch.isnan(loss) or torch.isinf(loss)``.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/TensorCompare.cpp`` ``isnan``,
    ``isinf``.
    """
    is_nan = empty(loss.shape, BOOL)
    del is_nan
    magnitude = empty(loss.shape, loss.dtype)
    is_inf = empty(loss.shape, BOOL)
    del magnitude, is_inf
