"""Start a run in the Python that has torch, and read what it recorded."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memplan.errors import MemplanError, MissingError
from memplan.evidence.recording import Recording
from memplan.evidence.runner.alarm import STOPPED

MODULE = "memplan.evidence.runner"
PACKAGE = Path(__file__).parents[2]
MAX_SHOWN = 400
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")  # they are the host Python's
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # of one device, none


class MeasurementError(MemplanError):
    """A run that ended without a result."""


def run(
    workload: Mapping[str, Any],
    model_config: Mapping[str, Any],
    *,
    python: Path | str,
    environment: Mapping[str, str],
    snapshot: Path | None = None,
    history: bool = True,
    alone: bool = False,
) -> Recording:
    """What torch's allocator counted of a workload, run in a fresh process.

    Args:
        workload: Every key, as ``Workload.to_dict`` gives them.
        model_config: Keys of the model's ``config.json``.
        python: The interpreter that has torch.
        environment: What is set for it beside this process's own environment.
        snapshot: Where to write torch's memory snapshot, if anywhere.
        history: Whether every event of the allocator is kept, which tells what stood at the peak.
        alone: Of a strategy's ranks, the one that the environment names is run without the others.

    Raises:
        MeasurementError: The process crashed.
        MissingError: There is no such interpreter.
    """
    with tempfile.TemporaryDirectory(prefix="memplan-run-") as folder, importable() as path:
        job, out = Path(folder, "job.json"), Path(folder, "recording.json")
        values = {
            "workload": dict(workload),
            "model_config": dict(model_config),
            "history": history,
            "snapshot": None if snapshot is None else str(snapshot.absolute()),
            "alone": alone,
            "out": str(out),
        }
        job.write_text(json.dumps(values), encoding="utf-8")
        variables = child_environment(environment, path)
        if workload.get("strategy", "single") == "single":
            variables = {k: v for k, v in variables.items() if k not in RANK_VARIABLES}
        errors = call([absolute(python), "-m", MODULE, str(job)], variables, folder)
        return read_recording(out, errors)


def absolute(python: Path | str) -> str:
    """A path to an interpreter that holds in any folder; a bare name is looked up."""
    return str(Path(python).absolute()) if os.sep in str(python) else str(python)


def call(command: list[str], environment: Mapping[str, str], folder: str) -> str:
    """Run a command to its end and return what it wrote to stderr.

    It runs in a folder of its own: with ``-m``, Python looks for modules in the current one first.
    """
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise MissingError(f"{command[0]}: cannot be started: {error.strerror}.") from None
    text = done.stderr.decode("utf-8", "replace")
    if done.returncode == STOPPED and last_line(text).startswith("stopped, since"):
        raise MeasurementError(f"the run was {last_line(text)}.")
    if done.returncode:
        raise MeasurementError(f"the run crashed ({ending(done.returncode)}): {last_line(text)}")
    return text


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    hint = "; the host is out of memory?" if code == -9 else ""
    return f"signal {-code}{hint}"


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_SHOWN] if lines else "it said nothing"


def read_recording(path: Path, errors: str) -> Recording:
    """The recording that a run left."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MeasurementError(f"the run left no recording: {last_line(errors)}") from None
    return Recording.from_mapping(values)


def child_environment(environment: Mapping[str, str], path: str) -> dict[str, str]:
    """The environment of the child: ours and what was asked for, memplan on the module path."""
    own = {key: value for key, value in os.environ.items() if key not in DROPPED}
    paths = [path, environment.get("PYTHONPATH", "")]
    return {**own, **environment, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


@contextmanager
def importable() -> Iterator[str]:
    """A folder that holds memplan and nothing else, for the path of another Python's modules.

    memplan may be installed among packages that were built for this Python; that folder must not
    reach the other one.
    """
    with tempfile.TemporaryDirectory(prefix="memplan-path-") as folder:
        Path(folder, "memplan").symlink_to(PACKAGE, target_is_directory=True)
        yield folder
