"""Where the phases of a training loop are, found from outside: the loop needs no change.

A backward ends the forward and then itself; an optimizer's step ends the step; setting gradients to
none ends what follows it. A forward without gradients is evaluation: between two steps, all that is
done there. Everything before the first of these is loading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memplan.evidence.recorder.gradients import mark_gradients

if TYPE_CHECKING:
    from memplan.evidence.recorder.recorder import Recorder

WATCHDOG_SECONDS = 0.25
"""How long a step of several ranks waits at the end of a phase.

torch's NCCL process group lets go of finished work, and of its tensors, when its watchdog looks:
every 0.1 s (pytorch/pytorch v2.14.1 ProcessGroupNCCL.hpp ``kWatchdogThreadSleepMillis``). A step on
a real GPU lasts longer than that; here its kernels take no time.
"""


class Loop:
    """The phase that a loop is in, as far as its calls show it.

    Attributes:
        first: Name of what comes before the first step.
        step: The step that runs, from 1; 0 before the first.
        stepped: Whether its optimizer has stepped.
        max_steps: Steps after which the run ends; 0: it ends by itself.
    """

    def __init__(self, recorder: Recorder, *, first: str = "load", max_steps: int = 0) -> None:
        self.recorder = recorder
        self.first = first
        self.max_steps = max_steps
        self.step = 0
        self.depth = self.updates = 0
        self.stepped = self.evaluates = False
        self.optimizers: list[Any] = []

    def install(self) -> None:
        """Watch every way in which a loop says where it is."""
        import torch
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        wrap(torch.autograd, "backward", self.backward)
        wrap(torch.optim.Optimizer, "zero_grad", self.zero_grad)
        wrap(torch.nn.Module, "zero_grad", self.zero_grad)
        register_optimizer_step_pre_hook(self.before_update)
        register_optimizer_step_post_hook(self.after_update)
        self.recorder.modules.outermost.append(self.forward)

    def forward(self, begins: bool) -> None:
        """An outermost forward begins or ends."""
        import torch

        if not begins:
            if self.is_in_step:
                self.end_evaluation()
        elif torch.is_grad_enabled():
            self.begin_step()
        elif not self.evaluates:
            self.begin_evaluation()

    @property
    def is_in_step(self) -> bool:
        """Whether a step has begun whose optimizer has not stepped yet."""
        return bool(self.step) and not self.stepped

    def begin_evaluation(self) -> None:
        """The first forward without gradients."""
        self.evaluates = True
        if self.is_in_step:
            self.end("other")
        elif not self.step:
            self.end(self.first)
        self.recorder.begin("eval", self.step)

    def end_evaluation(self) -> None:
        """What follows is no evaluation: in a step, the end of that forward; else the next step."""
        if self.evaluates:
            self.evaluates = False
            self.end("eval")

    def begin_step(self) -> None:
        """A forward or a backward of a step that may be a new one."""
        self.end_evaluation()
        if self.is_in_step:
            return
        if not self.step:
            self.end(self.first)
        self.stop_after()
        self.step += 1
        self.stepped = False
        self.recorder.begin("forward", self.step)

    def backward(self, run: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """A backward; those inside of another are part of it."""
        if self.depth:
            return run(*args, **keywords)
        self.begin_step()
        self.end("forward")
        self.depth += 1
        try:
            result = run(*args, **keywords)
        finally:
            self.depth -= 1
        if self.recorder.history:
            mark_gradients(self.trained(), self.recorder.modules.parameters)
        self.end("backward")
        return result

    def before_update(self, optimizer: Any, _args: Any, _keywords: Any) -> None:
        """An optimizer is about to step, perhaps as a part of another."""
        self.updates += 1
        if not any(o is optimizer for o in self.optimizers):
            self.optimizers.append(optimizer)

    def after_update(self, _optimizer: Any, _args: Any, _keywords: Any) -> None:
        """An optimizer has stepped; one inside the backward or another's step is part of that."""
        self.updates -= 1
        if self.depth or self.updates or not self.step:
            return
        self.stepped = True
        self.end("optimizer_step")

    def zero_grad(self, run: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Gradients are set to none."""
        result = run(*args, **keywords)
        if self.stepped and not self.depth:
            self.end("zero_grad")
            self.stop_after()
        return result

    def stop_after(self) -> None:
        """End the program once it has done the steps that were asked for."""
        if self.max_steps and self.stepped and self.step >= self.max_steps:
            raise SystemExit(0)

    def trained(self) -> list[Any]:
        """The parameters of the optimizers that have been seen."""
        return [p for o in self.optimizers for group in o.param_groups for p in group["params"]]

    def end(self, name: str) -> None:
        """A phase ends; with several ranks, once what they exchanged is let go."""
        import torch

        distributed = torch.distributed
        if self.step and distributed.is_available() and distributed.is_initialized():
            time.sleep(WATCHDOG_SECONDS)
        self.recorder.end_phase(name, self.step)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Put a function around another: it is given the one that was there."""
    from functools import wraps

    inner = getattr(owner, name)

    @wraps(inner)
    def outer(*args: Any, **keywords: Any) -> Any:
        return around(inner, *args, **keywords)

    setattr(owner, name, outer)
