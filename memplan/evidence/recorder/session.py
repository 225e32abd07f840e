"""A recorder in somebody else's program: from when torch uses its device to the program's end.

Loaded by every Python that a rehearsal starts, through a ``sitecustomize`` on its path. A Python
that never uses the device leaves no recording.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from memplan.evidence.recorder.hooks import Loop
from memplan.evidence.recorder.recorder import Recorder

SETTINGS = "MEMPLAN_REHEARSAL"
"""The variable that has the settings, as JSON: ``out`` (a folder), ``steps`` and ``snapshot``."""


class AfterImport(MetaPathFinder):
    """Calls a function once a module has been imported, and is gone then."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that calls back."""
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._call_back(spec.loader)
        return spec

    def _call_back(self, loader: Loader) -> None:
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self.then()

        loader.exec_module = exec_module  # type: ignore[method-assign]


class Session:
    """One process of a rehearsal."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.recorder = Recorder(keep_events=bool(settings.get("snapshot")))
        self.pid = os.getpid()
        self.begun = self.written = False

    def prepare(self) -> None:
        """Torch is there: wait for its device."""
        import torch

        if "RANK" in os.environ:
            from memplan.evidence.recorder.ranks import stand_alone

            stand_alone()
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.cuda._lazy_call(self.begin)
        atexit.register(self.write)
        self._watch_exits()

    def begin(self) -> None:
        """The device is there: record from here on."""
        if self.begun:
            return
        self.begun = True
        self.recorder.start()
        self.recorder.counters.share()
        self.recorder.follow(Loop(self.recorder, max_steps=self.settings.get("steps") or 0))

    def write(self) -> None:
        """The program ends: leave what was recorded."""
        if not self.begun or self.written or os.getpid() != self.pid:
            return
        self.written = True
        if self.recorder.stop is None:
            loop = self.recorder.loop
            rest = "eval" if loop and loop.evaluates else "other"
            self.recorder.end_phase(rest, loop.step if loop else 0)
        recording = self.recorder.finish(largest_model(), **self.snapshot())
        out = Path(self.settings["out"], f"{self.pid}.json")
        out.write_text(json.dumps(recording.to_mapping()), encoding="utf-8")

    def snapshot(self) -> dict[str, Any]:
        """Write torch's own snapshot, if it was asked for; what became of it, if not."""
        path = self.settings.get("snapshot")
        if not path:
            return {}
        try:
            self.recorder.write_snapshot(path)
        except OSError as error:
            return {"notes": (*self.recorder.notes, f"{path}: {error.strerror}")}
        return {}

    def _watch_exits(self) -> None:
        """Know of an error that ends the program, and of an exit that skips ``atexit``."""
        told, leave = sys.excepthook, os._exit

        def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            import torch

            if isinstance(error, torch.OutOfMemoryError) and self.begun:
                self.recorder.out_of_memory(error)
            told(kind, error, trace)

        def leave_at_once(code: int) -> None:
            self.write()
            leave(code)

        sys.excepthook, os._exit = hook, leave_at_once  # type: ignore[assignment]


def largest_model() -> Any:
    """The module with the most parameters that is not inside of another; none if there is none."""
    import gc

    import torch

    modules = [o for o in gc.get_objects() if issubclass(type(o), torch.nn.Module)]
    inner = {id(m) for outer in modules for m in outer.children()}
    outermost = [m for m in modules if id(m) not in inner]
    return max(outermost, key=lambda m: sum(p.numel() for p in m.parameters()), default=None)


def watch() -> None:
    """Begin a session in this process, if it belongs to a rehearsal."""
    text = os.environ.get(SETTINGS)
    if not text or "torch" in sys.modules:
        return
    session = Session(json.loads(text))
    sys.meta_path.insert(0, AfterImport("torch", session.prepare))
