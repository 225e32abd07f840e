"""What a method costs and gives beside memory: FLOPs, what is added at inference, what merges.

FLOPs are counted by the run itself, product by product, as memory is: a method's own matrices, a
backward that stops where nothing trains and a layer that is run twice are in them with no formula.
As in torch's own counter, only matrix products and attention count; the optimizer does not.
"""

from __future__ import annotations

from dataclasses import replace

from memplan.combinations import METHOD_KEYS
from memplan.counting import count_parameters
from memplan.engine.nn import Module
from memplan.engine.repeat import Depth
from memplan.engine.tape import OUTSIDE, Tape
from memplan.method_table import BY_NAME
from memplan.results import TradeOffs
from memplan.running import Attempt, Run, is_uniform
from memplan.workload import DEFAULTS

FEW_LAYERS = 2
"""From the second layer on, uniform layers do the same: one more tells what each adds."""


class FlopTape(Tape):
    """A tape that notes what has been computed by the end of each phase.

    Attributes:
        total: So far. [FLOPs]
        flops: By the end of each phase. [FLOPs]
    """

    counts = True

    def __init__(self) -> None:
        super().__init__()
        self.total, self.flops = 0.0, dict[str, float]()

    def compute(self, flops: int) -> None:
        """Count."""
        self.total += flops

    def end_phase(self, name: str, step: int = OUTSIDE) -> None:
        """Note the count."""
        super().end_phase(name, step)
        self.flops[name] = self.total


def trade_offs(run: Run, model: Module) -> TradeOffs:
    """What the run's method costs and gives beside memory.

    Args:
        run: The workload with its model and device.
        model: The trained model.
    """
    method, base = BY_NAME[run.workload.method], base_of(run, "frozen")
    forward, training = flops(run)
    base_forward, _ = flops(base)
    few_layers = Attempt(Depth.representative(run.config.num_hidden_layers), 1, 1)
    base_model = base.play(Tape(), base.workload, few_layers)
    return TradeOffs(
        merges=method.merges,
        context_tokens=context_tokens(run),
        inference_parameters=count_parameters(model).total - count_parameters(base_model).total,
        inference_flops_share=(forward - base_forward) / base_forward,
        training_flops=training,
        training_flops_share=training / flops(base_of(run, "full"))[1],
    )


def context_tokens(run: Run) -> int:
    """Virtual tokens that take their place in the model's context. [tokens]"""
    w = run.workload
    return w.num_virtual_tokens if w.method in METHOD_KEYS["num_virtual_tokens"] else 0


def base_of(run: Run, method: str) -> Run:
    """The same run without the method's own keys, on a base that is not quantised."""
    own = {key: DEFAULTS[key] for key in METHOD_KEYS}
    own |= {key: DEFAULTS[key] for key in ("eval", "save", "optim_args", "trainable")}
    own |= {"method": method, "quantization": "none", "optimizer": "none", "loop": "plain"}
    plain = replace(run.workload, **own)
    return replace(run, workload=plain)


def flops(run: Run) -> tuple[float, float]:
    """Of one micro batch: forward, and forward and backward together. [FLOPs]"""
    total = run.config.num_hidden_layers
    if total <= FEW_LAYERS or not is_uniform(run.workload, run.config):
        return counted(run, total)
    few, more = counted(run, FEW_LAYERS), counted(run, FEW_LAYERS + 1)
    forward, training = (a + (total - FEW_LAYERS) * (b - a) for a, b in zip(few, more, strict=True))
    return forward, training


def counted(run: Run, layers: int) -> tuple[float, float]:
    """The same, of a model of so many layers, counted. [FLOPs]"""
    tape = FlopTape()
    run.play(tape, run.workload, Attempt(Depth.unrolled(layers), 1, 1))
    return tape.flops["forward"], tape.flops["backward"]
