"""A run whose batches differ in length, as those that are padded to their longest sequence do.

A workload has one length. What a training script reserves depends on the batches before the longest
one too: their outputs are still alive, their gradients lie between what is to be freed. Here a
few batches are run one after the other, in the byte-counting engine, on the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memplan.allocator.caching import Allocator
from memplan.allocator.replay import Replay, replay
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import EMPTY_CACHE, Tape
from memplan.running import Run
from memplan.training import Loop, prepare
from memplan.workload import Workload


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's batch.

    Attributes:
        seq_len: Its padded length. [tokens]
        empties_cache: Whether ``torch.cuda.empty_cache()`` follows the optimizer's step.
    """

    seq_len: int
    empties_cache: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """What torch's counters say at the end of the process. [bytes]"""

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    fits: bool


def run_batches(workload: Workload, batches: Sequence[Batch]) -> Counters:
    """The peaks of a process that loads, adapts and trains on these batches, one a step.

    Gradients are dropped at the start of a step, after the cache was emptied, as in a loop that
    begins with ``optimizer.zero_grad()``.
    """
    made = Run.of(workload)
    tape = _play(made, batches)
    device = made.device
    allocator = Allocator(capacity_bytes=device.capacity_bytes, context_bytes=device.context_bytes)
    replayed = _replay(allocator, tape)
    if not replayed.fits:
        endless = _replay(Allocator(), tape)
        return Counters(endless.peak_allocated_bytes, endless.peak_reserved_bytes, False)
    return Counters(replayed.peak_allocated_bytes, replayed.peak_reserved_bytes, True)


def _play(made: Run, batches: Sequence[Batch]) -> Tape:
    """The events of all layers and steps."""
    tape, workload = Tape(), made.workload
    depth = Depth.unrolled(made.config.num_hidden_layers)
    with run(tape, made.kernels):
        model = prepare(workload, made.config, depth, made.device.capacity_bytes)
        params = [p for p in model.parameters() if p.requires_grad]
        loop = Loop(workload, model, params, workload.gradient_accumulation_steps)
        tape.end_phase("optimizer_init")
        for step, batch in enumerate(batches):
            _step(loop, tape, step, batch)
        tape.finish()
    return tape


def _step(loop: Loop, tape: Tape, step: int, batch: Batch) -> None:
    """One step, then what the start of the next one drops."""
    loop.workload = replace(loop.workload, seq_len=batch.seq_len)
    for _ in range(loop.micro_steps):
        loop.micro_step(step)
    loop.update()
    tape.end_phase("optimizer_step", step)
    if batch.empties_cache:
        tape.empty_cache()
    if loop.optimizer is not None:
        loop.optimizer.zero_grad()
    tape.end_phase("zero_grad", step)


def _replay(allocator: Allocator, tape: Tape) -> Replay:
    marks = [(p.end, p.name if p.name == EMPTY_CACHE else p) for p in tape.phases]
    return replay(allocator, tape.events, marks)
