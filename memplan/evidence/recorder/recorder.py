"""The recorder: counters of every phase, and what stood at the peak."""

from __future__ import annotations

import os
from typing import Any

from memplan.allocator.caching import DEFAULT_CONFIG
from memplan.allocator.config import AllocatorConfig, parse_allocator_config
from memplan.errors import MemplanError
from memplan.evidence.frames import op_of
from memplan.evidence.recorder.counters import Counters
from memplan.evidence.recorder.facts import device_facts, library_versions, parameter_facts
from memplan.evidence.recorder.gradients import leaves, mark_gradients, owners
from memplan.evidence.recorder.hooks import Loop
from memplan.evidence.recorder.modules import ModuleNames
from memplan.evidence.recording import DeviceFacts, OutOfMemory, PhaseCounters, Recording
from memplan.evidence.trace import MODULE, Ledger, Moment, Phase, breakdown, groups
from memplan.results import PeakMoment

MAX_ENTRIES = 10_000_000
NEXT = {
    "load": "adapter",
    "adapter": "optimizer_init",
    "optimizer_init": "forward",
    "forward": "backward",
    "backward": "optimizer_step",
    "optimizer_step": "zero_grad",
    "zero_grad": "forward",
}
"""The phase that runs after one is over, until something else shows."""
LAST = ("optimizer_init", "zero_grad")
"""Phases after which the next step begins."""
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


class Recorder:
    """Records one run; start it before the device is used.

    Attributes:
        phases: Those that are over.
        modules: Names the modules that run, where the history is kept.
    """

    def __init__(self, *, history: bool = True, keep_events: bool = False) -> None:
        self.history = history
        self.keep_events = keep_events
        self.events: list[Any] = []
        self.counters = Counters()
        self.modules = ModuleNames()
        self.phases: list[PhaseCounters] = []
        self.ledger = Ledger(allocator_config())
        self.best = -1
        self.peak: tuple[Phase, Moment] | None = None
        self.stop: OutOfMemory | None = None
        self.stopped_at: Moment | None = None
        self.device: DeviceFacts | None = None
        self.notes: list[str] = []
        self.now = ("load", 0)
        self.loop: Loop | None = None

    def start(self) -> None:
        """Begin: torch keeps its history from here on."""
        import torch

        torch.cuda.init()
        self.device = device_facts()
        torch._C._cuda_attach_out_of_memory_observer(self._out_of_memory)
        if not self.history:
            return
        self._keep_history()
        self.modules.install()
        self.modules.outermost.append(self._outermost)
        self._watch_backward(torch)

    def end_phase(self, name: str, step: int = 0) -> None:
        """A phase ends here; ``step`` counts from 1, 0 is before the training."""
        if self.stop is not None:
            self.recover()
        counters = self.counters.end_phase(name, step)
        self.phases.append(counters)
        if self.history:
            self._settle(counters, self.ledger.phase(name, step, self._take_events()))
            self._expect(name)
        self.now = NEXT.get(name, name), step + (name in LAST)

    def finish(self, model: Any = None, **more: Any) -> Recording:
        """The recording of what was run."""
        if model is not None:
            more = parameter_facts(model) | more
            for address, owner in owners(model, self.loop.optimizers if self.loop else ()):
                self.ledger.name(address, owner)
        moment = self._moment()
        return Recording(
            device=self.device or DeviceFacts("none", (0, 0), 0, 0),
            versions=library_versions(),
            phases=tuple(self.phases),
            peak=self._peak_moment(),
            breakdown_at_peak=None if moment is None else breakdown(moment),
            blocks=() if moment is None else groups(moment),
            out_of_memory=self.stop,
            **{"notes": tuple(self.notes), **more},
        )

    def install_hooks(self, model: Any = None) -> None:
        """Find the phases from here on by what the loop calls; the model is there already."""
        self.follow(Loop(self, first="optimizer_init"))
        self.modules.expect_batch()

    def end_evaluation(self) -> None:
        """The evaluation that runs, if one does, is over."""
        if self.loop is not None:
            self.loop.end_evaluation()

    def follow(self, loop: Loop) -> None:
        """Let a loop's calls say where the phases are."""
        self.loop = loop
        loop.install()

    def out_of_memory(self, error: BaseException) -> None:
        """The run stopped with this error; the phase that ran ends here."""
        self.phases.append(self.counters.end_phase(*self.now))
        if self.stop is None:
            self.stop = OutOfMemory(self.now[1], self.now[0], "", "", 0, "")
        message = " ".join(str(error).split())
        s = self.stop
        self.stop = OutOfMemory(s.step, s.phase, s.module, s.op, s.requested_bytes, message)

    def recover(self) -> None:
        """The run went on after it was out of memory: the program took care of it."""
        if self.stop is not None:
            where = f"step {self.stop.step}, {self.stop.phase}"
            self.notes.append(f"out of memory at {where}; the program went on")
        self.stop, self.stopped_at = None, None

    def begin(self, name: str, step: int) -> None:
        """Name the phase that runs, for what may stop it."""
        self.now = name, step

    def _outermost(self, begins: bool) -> None:
        """A forward of the training begins: after a backward, that of the next micro batch."""
        name, step = self.now
        if begins and step and name == "optimizer_step":
            self.now = "forward", step

    def _keep_history(self) -> None:
        import torch

        torch.cuda.memory._record_memory_history(
            max_entries=MAX_ENTRIES, stacks="all", context="alloc", clear_history=True
        )

    def _take_events(self) -> Any:
        """The events since the last time."""
        import torch

        if not torch.cuda.is_initialized():
            return ()
        device = torch.cuda.current_device()
        events = torch.cuda.memory._snapshot()["device_traces"][device]
        self._keep_history()
        if self.keep_events:
            self.events += events
        return events

    def write_snapshot(self, path: str) -> None:
        """Write torch's memory snapshot, with every event of the run.

        Raises:
            OSError: The file cannot be written.
        """
        import pickle

        import torch

        snapshot = torch.cuda.memory._snapshot()
        device = torch.cuda.current_device()
        snapshot["device_traces"][device] = [*self.events, *snapshot["device_traces"][device]]
        with open(path, "wb") as file:
            pickle.dump(snapshot, file)

    def _settle(self, counters: PhaseCounters, phase: Phase) -> None:
        """Put the phase's blocks in their categories; remember it if it holds the peak."""
        phase.settle()
        if not counters.step or counters.peak_allocated_bytes <= self.best:
            return
        self.best = counters.peak_allocated_bytes
        if phase.peak_bytes != self.best:
            self.notes.append(
                f"the peak of step {counters.step}, {counters.name} is "
                f"{self.best - phase.peak_bytes:+,} bytes off what its events make up"
            )
        self.peak = phase, phase.at(phase.peak_event, self.best)

    def _expect(self, ended: str) -> None:
        """What the loop asks for after the end of a step is the next batch."""
        if ended in ("optimizer_init", "backward", "optimizer_step", "zero_grad"):
            self.modules.expect_batch()

    def _moment(self) -> Moment | None:
        if self.stop is not None:
            return self.stopped_at
        return self.peak[1] if self.peak else None

    def _peak_moment(self) -> PeakMoment | None:
        if self.stop is not None:
            s = self.stop
            return PeakMoment(s.step, s.phase, s.module, s.op)
        if self.peak is None:
            return None
        phase, moment = self.peak
        last = moment.last
        where = (last.module, op_of(last.frames)) if last is not None else ("", "")
        return PeakMoment(phase.step, phase.name, *where)

    def _watch_backward(self, torch: Any) -> None:
        """Mark the gradients that each backward leaves, those inside of checkpointing too."""
        run = torch.autograd.backward

        def backward(tensors: Any, *args: Any, **keywords: Any) -> None:
            roots = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
            run(tensors, *args, **keywords)
            mark_gradients(leaves(roots), self.modules.parameters)

        torch.autograd.backward = backward

    def _out_of_memory(self, device: int, wanted: int, total: int, free: int) -> None:
        """Torch is about to raise: what stands now is what the run stopped at."""
        name, step = self.now
        module = op = ""
        if self.history:
            events = list(self._take_events())
            phase = self.ledger.phase(name, step, events)
            phase.settle()
            self.stopped_at = phase.at(1 << 62, self._allocated())
            module, op = where_stopped(events)
        self.stop = OutOfMemory(step, name, module, op, wanted, "")

    def _allocated(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated())


def where_stopped(events: list[Any]) -> tuple[str, str]:
    """Module and operator of the allocation that found no room."""
    for event in reversed(events):
        if event["action"] == "oom":
            metadata = event.get("user_metadata", "")
            module = metadata[len(MODULE) :] if metadata.startswith(MODULE) else ""
            return module, op_of(event.get("frames", ()))
    return "", ""


def allocator_config() -> AllocatorConfig:
    """The options that torch's allocator was given in the environment."""
    text = next((os.environ[v] for v in ALLOCATOR_VARIABLES if os.environ.get(v)), "")
    try:
        return parse_allocator_config(text) if text else DEFAULT_CONFIG
    except MemplanError:
        return DEFAULT_CONFIG
