"""One workload made ready to run; its events, from as few layers and steps as stand for all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from memplan.coverage import require_modelled
from memplan.engine.annotate import AnnotatedTape
from memplan.engine.kernels import Kernels
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth, NotAlike, Stream, expand
from memplan.engine.state import run
from memplan.engine.steps import Steps, accumulate
from memplan.engine.tape import Tape
from memplan.hardware import Device, load_device
from memplan.lora_options import LORA_METHODS
from memplan.models.config import ModelConfig, load_model_config
from memplan.optimizers.schedule_free import RECTIFIED_FROM
from memplan.peft_options import PEFT_SELECTORS
from memplan.training import train
from memplan.workload import PEFT_TARGETS, Workload

FEW = 2
"""Steps that are run: the first makes the optimizer's states, the second is like the others."""
ALIKE_AFTER = {"schedule_free_radam": RECTIFIED_FROM + 1}
"""Optimizers whose steps change later on: how many are run; those after the last are like it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How much of a workload is run: layers, steps, and micro batches of a step."""

    depth: Depth
    steps: int
    micro_steps: int


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run left behind.

    Attributes:
        attempt: How much was run.
        stream: The events of all layers.
        steps: The steps of it, and how to write further ones.
        model: The trained model.
    """

    attempt: Attempt
    stream: Stream
    steps: Steps
    model: Module


@dataclass(frozen=True, slots=True)
class Run:
    """A workload with its model config and its device."""

    workload: Workload
    config: ModelConfig
    device: Device

    @classmethod
    def of(cls, workload: Workload) -> Run:
        """Load what the workload names.

        Raises:
            UnsupportedError: Something of it is not modelled.
        """
        require_modelled(workload)
        return cls(workload, load_model_config(workload.model), load_device(workload.gpu))

    def resolved(self) -> dict[str, Any]:
        """The workload's keys; an alias of a model and PEFT's own targets written out."""
        keys = self.workload.to_dict()
        if self.workload.method in LORA_METHODS:
            keys["target_modules"] = keys["target_modules"] or list(PEFT_TARGETS)
        if isinstance(self.workload.model, str):
            keys["model"] = self.config.name
        return keys

    @property
    def kernels(self) -> Kernels:
        """The device's facts that kernels depend on."""
        d = self.device
        return Kernels(
            d.compute_capability, d.sm_count, d.threads_per_sm, d.shared_memory_per_block
        )

    def attempts(self) -> Iterator[Attempt]:
        """From the least work to all of it; the next is needed where the last was ``NotAlike``."""
        total, steps = self.config.num_hidden_layers, self.workload.steps
        micro_steps = self.workload.gradient_accumulation_steps
        depths = [Depth.unrolled(total)]
        if Depth.representative(total).extra and is_uniform(self.workload, self.config):
            depths.insert(0, Depth.representative(total))
        for depth in depths:
            few = ALIKE_AFTER.get(self.workload.optimizer, FEW)
            yield Attempt(depth, min(few, steps), min(FEW, micro_steps))
            if max(steps, micro_steps) > FEW:
                yield Attempt(depth, steps, micro_steps)

    def record(self) -> Recording:
        """The events of the run."""
        for attempt in self.attempts():
            tape = Tape()
            model = self.play(tape, self.workload, attempt)
            try:
                stream = self.write(tape, attempt)
                return Recording(attempt, stream, Steps(stream, self.workload.steps), model)
            except NotAlike:
                continue
        raise AssertionError("an attempt that runs everything is always alike")

    def annotate(self, attempt: Attempt) -> tuple[AnnotatedTape, Stream]:
        """The same run again, with the origin of every block."""
        tape = AnnotatedTape()
        self.play(tape, self.workload, attempt)
        return tape, self.write(tape, attempt)

    def write(self, tape: Tape, attempt: Attempt) -> Stream:
        """The events of all layers and micro batches, from those of an attempt.

        Raises:
            NotAlike: The attempt does not stand for all of them.
        """
        stream = expand(tape, attempt.depth)
        wanted = self.workload.gradient_accumulation_steps
        return accumulate(stream, attempt.micro_steps, wanted)

    def play(self, tape: Tape, workload: Workload, attempt: Attempt) -> Module:
        """Run the workload on a tape."""
        with run(tape, self.kernels):
            model = train(
                workload,
                self.config,
                attempt.depth,
                attempt.steps,
                self.device.capacity_bytes,
                attempt.micro_steps,
            )
            tape.finish()
        return model


LINEARS = ("q", "k", "v", "o"), ("gate", "up", "down")
NAMES = [
    f"{block}.{name}_proj"
    for block, names in zip(("self_attn", "mlp"), LINEARS, strict=True)
    for name in names
]


BY_DEPTH = (
    *("last_layers", "llama_adapter", "adaption_prompt", "prefix_tuning", "cartridge"),
    *("lily", "tinylora", "vblora"),
)
"""Methods that tell decoder layers apart, or that make something for all of them at once."""


NORMS = (
    *("input_layernorm", "post_attention_layernorm"),
    *("self_attn.q_norm", "self_attn.k_norm"),
)


def is_uniform(workload: Workload, config: ModelConfig) -> bool:
    """Whether every decoder layer is built and adapted like every other."""
    keys = (*PEFT_SELECTORS, "feedforward_modules")
    if workload.kernels == "liger":  # gradients are written over what other layers left
        return False
    selects = any(workload.peft_config.get(key) is not None for key in keys)
    if selects or len(set(config.layer_types)) > 1 or workload.method in BY_DEPTH:
        return False
    if workload.quantization.startswith("hqq"):  # it empties the cache within a layer
        return False
    if not all(finds_in_every_layer(p, config.num_hidden_layers) for p in workload.trainable):
        return False
    targets = workload.target_modules
    named = (*(() if isinstance(targets, str) else targets or ()), *workload.modules_to_save)
    if any(c.isdigit() for name in named for c in name):
        return False
    if not isinstance(targets, str):
        return True
    return targets == "all-linear" or matches_every_layer(targets, config.num_hidden_layers)


def finds_in_every_layer(pattern: str, layers: int) -> bool:
    """Whether a pattern that is searched for is found in the same parameters of each layer.

    A pattern may tell layers apart without naming a number: one or two digits.
    """
    search = re.compile(pattern).search
    names = [f"{name}.{kind}" for name in (*NAMES, *NORMS) for kind in ("weight", "bias")]
    found = {
        tuple(bool(search(f"model.layers.{i}.{name}")) for name in names) for i in range(layers)
    }
    return len(found) == 1


def matches_every_layer(pattern: str, layers: int) -> bool:
    """Whether a pattern that PEFT matches in full takes the same modules of each layer."""
    match = re.compile(pattern).fullmatch
    names = (*NAMES, *NORMS)
    taken = {
        tuple(bool(match(f"model.layers.{i}.{name}")) for name in names) for i in range(layers)
    }
    return len(taken) == 1
