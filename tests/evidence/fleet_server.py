"""Many runs from one process that has the libraries loaded: each in a fork of it.

    PYTHON tests/evidence/fleet_server.py < jobs.jsonl

``PYTHON`` is the virtual GPU's, started with its environment (``fleet.py`` does that). Reads one
job of the runner a line, with ``environment``, the card's variables, and answers with one line: a
recording, or ``{"crashed": ...}``. What a run allocates in a fork is what it allocates in a process
of its own (``test_remeasure`` holds both against one record): the parent never asks the device.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PRELOADED = (
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("transformers.trainer", "transformers.integrations.bitsandbytes", "peft", "bitsandbytes"),
    *("accelerate", "peft.optimizers", "memplan.evidence.runner.loops"),
)


@contextmanager
def no_device_questions(torch: Any) -> Iterator[None]:
    """Answer what libraries ask the device while they are imported, without asking it."""
    cuda = torch.cuda
    names = ("is_available", "get_device_capability", "device_count", "current_device", "device")
    real = {name: getattr(cuda, name) for name in names}
    try:
        cuda.is_available = lambda: True
        cuda.device_count = lambda: 1
        cuda.current_device = lambda: 0
        cuda.get_device_capability = lambda device=None: (8, 0)
        cuda.device = lambda index: index
        yield
    finally:
        for name, function in real.items():
            setattr(cuda, name, function)


def preload() -> None:
    """Import what every run needs."""
    import torch

    with no_device_questions(torch):
        for name in PRELOADED:
            importlib.import_module(name)
    assert not torch.cuda.is_initialized()


def answer(job: Json) -> Json:
    """Run one job in a fork, and what it left."""
    with tempfile.TemporaryDirectory(prefix="memplan-fleet-") as folder:
        out = Path(folder, "recording.json")
        pid = os.fork()
        if not pid:
            run_here({**job, "out": str(out)}, Path(folder, "error"))
        _, status = os.waitpid(pid, 0)
        if out.is_file():
            result: Json = json.loads(out.read_text(encoding="utf-8"))
            return result
        error = Path(folder, "error")
        text = error.read_text(encoding="utf-8") if error.is_file() else f"status {status}"
        return {"crashed": text}


def run_here(job: Json, error: Path) -> None:
    """The life of the fork."""
    for name in [n for n in os.environ if n.startswith("MEMPLAN_GPU_")]:
        del os.environ[name]  # the first job's
    os.environ.update(job.pop("environment"))
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    code = 0
    try:
        from memplan.evidence.runner.__main__ import run_job

        Path(job["out"]).write_text(json.dumps(run_job(job)), encoding="utf-8")
    except BaseException:
        error.write_text(traceback.format_exc()[-3000:], encoding="utf-8")
        code = 1
    os._exit(code)


def main() -> None:
    """Answer the jobs of stdin, one after the other."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from memplan.evidence.runner.__main__ import ENVIRONMENT

    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    preload()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
