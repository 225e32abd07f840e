"""The optimizer that the Trainer makes: weights decay, norms and biases do not.

Two groups of parameters, which a step goes through one after the other.

Source: huggingface/transformers v5.18.0 trainer.py ``create_optimizer``,
``get_decay_parameter_names``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from memplan.dtypes import FP32
from memplan.engine.nn import Embedding, Module
from memplan.engine.tensor import Tensor, empty
from memplan.errors import ConfigError
from memplan.optimizers import Optimizer, optimizer_of
from memplan.optimizers.base import in_layers
from memplan.optimizers.bnb import Bnb
from memplan.workload import Workload

FORBIDDEN = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Parts of the names of parameters that do not decay."""
EIGHT_BITS = 8
OWN = ("adamw_loop", "sgd_momentum", "muon")
"""Optimizers that ``TrainingArguments.optim`` has no word for: a user makes them, of one group."""

PARTED = ("apollo_adamw", "apollo_adamw_layerwise")
"""Optimizers whose own groups take the place of the Trainer's two."""


class Grouped(Optimizer):
    """An optimizer over groups, and what is called when its step is over."""

    def __init__(
        self, inner: Optimizer, groups: list[list[Tensor]], after: Callable[[], None]
    ) -> None:
        super().__init__(inner.params)
        self.inner, self.groups, self.after = inner, groups, after
        self.state, self.takes_scale = inner.state, inner.takes_scale  # type: ignore[misc]
        self.is_in_backward = inner.is_in_backward  # type: ignore[misc]

    def step(self) -> None:
        """One group after the other."""
        self.inner.step_groups(self.groups)
        self.after()


def build_optimizer(
    workload: Workload, model: Module, params: list[Tensor], after: Callable[[], None]
) -> Grouped:
    """The workload's optimizer.

    Raises:
        ConfigError: There is none.
    """
    inner = optimizer_of(workload)(params)
    if inner is None:
        raise ConfigError(
            "optimizer: none does not go with loop trainer: transformers' Trainer always has one. "
            "Use loop: plain."
        )
    if inner.is_in_backward and workload.gradient_accumulation_steps > 1:
        raise ConfigError(
            f"optimizer: {workload.optimizer} does not go with gradient_accumulation_steps in the "
            "Trainer, which refuses it: an update follows each backward. Use apollo_adamw."
        )
    move_to_device(inner)
    inner.look_into(model)
    is_own = workload.optimizer in OWN or "min_8bit_size" in workload.optim_args
    if is_own or workload.method == "lora_fa" or workload.optimizer in PARTED:
        return Grouped(inner, [params], after)
    if isinstance(inner, Bnb) and inner.bits == EIGHT_BITS:
        inner.in_full = embedding_weights(model)
    return Grouped(inner, decay_groups(model), after)


def move_to_device(optimizer: Optimizer) -> None:
    """``AcceleratedOptimizer``: states that are there when training begins go to the device.

    Source: huggingface/accelerate v1.15.0 optimizer.py ``AcceleratedOptimizer.__init__``.
    """
    for p in in_layers(list(optimizer.state)):
        for _ in range(optimizer.host_scalars):
            optimizer.state[p] += (empty((), FP32),)


def embedding_weights(model: Module) -> frozenset[Tensor]:
    """Parameters that the Trainer has ``bitsandbytes.optim.GlobalOptimManager`` keep in 32 bits."""
    return frozenset(m.weight for m in model.modules() if isinstance(m, Embedding))


def decay_groups(model: Module) -> list[list[Tensor]]:
    """What trains: parameters that decay, then those that do not."""
    groups: tuple[list[Tensor], list[Tensor]] = [], []
    for name, _, _, p in model.named_parameters():
        if p.requires_grad:
            groups[FORBIDDEN.search(name.lower()) is not None].append(p)
    return list(groups)
