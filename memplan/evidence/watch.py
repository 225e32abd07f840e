"""Predicted beside measured, in a training loop that runs: ``with memplan.watch(...): train()``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from os import PathLike
from types import TracebackType
from typing import Any

from memplan.errors import MemplanError, MissingError
from memplan.estimate import estimate
from memplan.evidence.advice import Change, helpful_changes
from memplan.evidence.model_keys import model_keys
from memplan.hardware import device_names, load_device
from memplan.results import Estimate
from memplan.units import GIB, MIB
from memplan.workload import Workload, load_workload

Log = Callable[[str], object]
PHASES = ("forward", "backward", "optimizer_step")


def watch(
    model: Any = None,
    workload: Workload | Mapping[str, Any] | str | PathLike[str] | None = None,
    *,
    every: int = 1,
    log: Log | logging.Logger = print,
    **keys: Any,
) -> Watch:
    """A context manager for a training loop that logs measured beside predicted peaks.

    It changes neither what is allocated nor when. It does reset torch's peak counters at the end of
    each phase; the peaks over all of them are ``peak_allocated_bytes`` and ``peak_reserved_bytes``.

    Args:
        model: The model that is trained, for its config, dtype, adapter and quantisation; or a
            workload's ``model`` key.
        workload: The workload, its keys, or a file that holds them.
        every: Steps between two lines.
        log: Is given each line; a logger gets them as information.
        keys: Further keys of the workload; see ``Workload``. The loop is taken to be a plain one;
            say ``loop="trainer"`` for transformers' Trainer.

    Raises:
        MissingError: There is no torch here, or it has no CUDA device.
    """
    require_cuda()
    write = log.info if isinstance(log, logging.Logger) else log
    return Watch(lambda: resolve(model, workload, keys), every=max(int(every), 1), log=write)


def require_cuda() -> Any:
    """The torch of this process.

    Raises:
        MissingError: There is none, or it has no CUDA device.
    """
    try:
        import torch
    except ImportError:
        raise MissingError("watch: needs torch: pip install 'memplan[evidence]'.") from None
    if not torch.cuda.is_available():
        raise MissingError(
            "watch: torch has no CUDA device here; memplan rehearse runs a script on a virtual one."
        )
    return torch


def resolve(model: Any, workload: Any, keys: Mapping[str, Any]) -> Workload:
    """The workload that is meant.

    Raises:
        MemplanError: It cannot be told, or not be used.
    """
    if isinstance(workload, Workload):
        return replace(workload, **keys)
    given = load_workload(workload) if isinstance(workload, (str, PathLike)) else workload or {}
    return Workload.resolve({"loop": "plain", **model_keys(model), **given, **keys})[0]


def catalogue_name(title: str) -> str | None:
    """The catalogue's name of the card that CUDA calls so; none if it has no such card."""
    return next((n for n in device_names() if load_device(n).title == title), None)


class Watch:
    """A running watch; made by `watch`.

    Attributes:
        estimate: What was predicted; none if that was not possible.
        peak_allocated_bytes: Over all phases so far. [bytes]
        peak_reserved_bytes: Over all phases so far. [bytes]
        step: Optimizer steps so far.
        phase: What is running.
    """

    def __init__(self, resolve: Callable[[], Workload], *, every: int, log: Log) -> None:
        self._resolve, self._every, self._log = resolve, every, log
        self.estimate: Estimate | None = None
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.step, self.phase = 0, "forward"
        self._workload: Workload | None = None
        self._peaks: dict[str, int] = {}
        self._undo: list[Callable[[], object]] = []
        self._entered = self._inside_backward = 0
        self._is_predicted = False

    def __enter__(self) -> Watch:
        """Predict, and listen to the loop."""
        self._entered += 1
        if self._entered == 1:
            self._guarded(self._predict)
            self._guarded(self._listen)
            self._guarded(self._restart)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Explain an error of memory, stop listening, and let every error go on."""
        self._entered -= 1
        if self._entered:
            return
        self._guarded(self._measure)
        while self._undo:
            self._guarded(self._undo.pop())
        if error is not None:
            self._guarded(lambda: self._explain(error))

    def callback(self) -> Any:
        """The same for transformers' Trainer: ``Trainer(callbacks=[watch.callback()])``.

        The Trainer tells its callbacks of no error: for what to do when memory runs out, put
        ``with watch:`` around ``train()`` as well.
        """
        try:
            from transformers import TrainerCallback
        except ImportError:
            raise MissingError("watch: a callback needs transformers.") from None
        watched = self

        class WatchCallback(TrainerCallback):  # type: ignore[misc]
            """Begins and ends a watch with the training."""

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                """The loop begins."""
                watched.__enter__()

            def on_train_end(self, *_: Any, **__: Any) -> None:
                """The loop is over."""
                watched.__exit__(None, None, None)

        return WatchCallback()

    def explain_out_of_memory(self, message: str) -> None:
        """Log what stood, as measured and as predicted, and what would help."""
        import torch

        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        self._log(
            f"memplan: out of memory in step {self.step + 1}, {self.phase.replace('_', ' ')}: "
            f"{_size(allocated)} allocated, {_size(reserved)} reserved, peak "
            f"{_size(self.peak_allocated_bytes)}. {' '.join(message.split())[:160]}"
        )
        self._guarded(self._predict)
        if self.estimate is None or self._workload is None:
            return
        self._log(describe_prediction(self.estimate))
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        changes = helpful_changes(self._workload, self.estimate)
        for change in changes:
            self._log(describe_change(change, total))
        if not changes:
            self._log("memplan: no change that memplan knows of would lower the peak.")

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do something of the watch's own; the training goes on whatever comes of it."""
        try:
            action()
        except MemplanError as error:
            self._say(f"memplan: no prediction: {error}")
        except Exception as error:
            self._say(f"memplan: the watch failed: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        with suppress(Exception):
            self._log(text)

    def _predict(self) -> None:
        """Estimate the workload once, on the card that is in use as soon as one is."""
        import torch

        if self._is_predicted or not torch.cuda.is_initialized():
            return
        self._is_predicted = True
        workload = self._resolve()
        if workload.gpu is None:
            title = torch.cuda.get_device_properties(torch.cuda.current_device()).name
            workload = replace(workload, gpu=catalogue_name(title))
        self.estimate, self._workload = estimate(workload), workload

    def _explain(self, error: BaseException) -> None:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            self.explain_out_of_memory(str(error))

    def _listen(self) -> None:
        """Find the phases through the loop's own calls; the loop needs no change."""
        import torch
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        self._undo.append(register_optimizer_step_pre_hook(self._before_step).remove)
        self._undo.append(register_optimizer_step_post_hook(self._after_step).remove)
        self._wrap(torch.autograd, "backward", before=self._before_backward,
                   after=self._after_backward)  # fmt: skip
        for owner in (torch.optim.Optimizer, torch.nn.Module):
            self._wrap(owner, "zero_grad", before=_nothing, after=self._after_zero_grad)

    def _wrap(
        self, owner: Any, name: str, *, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        """Be told of a call before and after it, until the watch ends."""
        inner = getattr(owner, name)

        @wraps(inner)
        def outer(*args: Any, **keywords: Any) -> Any:
            self._guarded(before)
            try:
                result = inner(*args, **keywords)
            except BaseException:
                self._inside_backward = 0
                raise
            self._guarded(after)
            return result

        def undo() -> None:
            if getattr(owner, name) is outer:  # or somebody has wrapped it since
                setattr(owner, name, inner)

        setattr(owner, name, outer)
        self._undo.append(undo)

    def _before_backward(self) -> None:
        self._inside_backward += 1
        if self._inside_backward == 1:
            self._end("forward", then="backward")

    def _after_backward(self) -> None:
        self._inside_backward -= 1
        if not self._inside_backward:
            self._end("backward", then="forward")

    def _before_step(self, *_: Any) -> None:
        self.phase = "optimizer_step"

    def _after_step(self, *_: Any) -> None:
        self._guarded(self._finish_step)

    def _after_zero_grad(self) -> None:
        if not self._inside_backward and not self._peaks:
            self._measure()
            self._restart()

    def _finish_step(self) -> None:
        """Log a step; one inside of a backward belongs to it."""
        if self._inside_backward:
            return
        self._end("optimizer_step", then="forward")
        self._guarded(self._predict)
        self.step += 1
        if (self.step - 1) % self._every == 0:
            self._log(describe_step(self.step, self._peaks, self.estimate))
        self._peaks.clear()

    def _end(self, name: str, *, then: str) -> None:
        """A phase ends; of several with one name in a step, the highest peak counts."""
        self._peaks[name] = max(self._peaks.get(name, 0), self._measure())
        self.phase = then
        self._restart()

    def _measure(self) -> int:
        """Allocated peak since the last restart. [bytes]"""
        import torch

        allocated: int = torch.cuda.max_memory_allocated()
        reserved: int = torch.cuda.max_memory_reserved()
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, allocated)
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, reserved)
        return allocated

    def _restart(self) -> None:
        """Begin a new peak; a device that nothing has used yet is left alone."""
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()


def _nothing() -> None:
    """Nothing to do."""


def _size(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB else f"{nbytes / MIB:.1f} MiB"


def describe_step(step: int, peaks: Mapping[str, int], predicted: Estimate | None) -> str:
    """One line: the measured peak of each phase, beside the predicted one."""
    parts = []
    for name in PHASES:
        if name not in peaks:
            continue
        text = f"{name.replace('_', ' ')} {_size(peaks[name])}"
        phase = predicted.phases.get(name) if predicted else None
        if phase is not None and phase.peak_allocated_bytes:
            text += f" (predicted {describe_error(step, peaks[name], phase.peak_allocated_bytes)})"
        parts.append(text)
    return f"memplan: step {step}, peak allocated: {'; '.join(parts)}"


def describe_error(step: int, measured: int, predicted: int) -> str:
    """A prediction, and how far off it is; it is of a step that finds the optimizer's states.

    >>> describe_error(1, 10 << 20, 20 << 20), describe_error(2, 21 << 20, 20 << 20)
    ('20.0 MiB from step 2 on', '20.0 MiB, +5.0 %')
    """
    if step == 1:
        return f"{_size(predicted)} from step 2 on"
    percent = round(100 * (measured / predicted - 1), 1) + 0.0  # no "-0.0"
    return f"{_size(predicted)}, {percent:+.1f} %"


def describe_prediction(predicted: Estimate) -> str:
    """One line: what memplan thinks stands at the peak."""
    peak, rows = predicted.peak, sorted(predicted.breakdown_at_peak.items(), key=lambda x: -x[1])
    what = ", ".join(f"{name.replace('_', ' ')} {_size(n)}" for name, n in rows if n)
    where = f" in {peak.phase.replace('_', ' ')}, {peak.module or peak.op}"
    return f"memplan: predicted peak {_size(predicted.peak_allocated_bytes)}{where}: {what}"


def describe_change(change: Change, total_bytes: int) -> str:
    """One line: a change, what it saves, and whether the run then fits the card."""
    keys = ", ".join(f"{key}={value}" for key, value in change.keys.items())
    changed = change.estimate
    fits = changed.gpu.fits if changed.gpu else changed.device_bytes <= total_bytes
    verdict = "fits" if fits else "does not fit"
    return (
        f"memplan: {keys} saves {_size(change.saved_bytes)}: peak "
        f"{_size(changed.peak_allocated_bytes)}, then it {verdict} this card alone."
    )
