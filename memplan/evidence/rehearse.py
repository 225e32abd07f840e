"""Run a training script, unchanged, on a GPU that is not there, and tell what torch counted.

The script runs in the environment of the virtual GPU, under a recorder that its Python loads by
itself. Several ranks run one at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memplan.errors import ConfigError, MemplanError
from memplan.evidence.recorder.session import SETTINGS
from memplan.evidence.recording import Recording
from memplan.evidence.runner.launch import child_environment, importable
from memplan.evidence.virtual.environment import Environment, require
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import Device, load_device

LAUNCHERS = {("torchrun",): "torchrun", ("accelerate", "launch"): "accelerate"}
SITE = """from memplan.evidence.recorder.session import watch
watch()
"""
MAX_RANKS = 16
SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One rank of a script on a virtual GPU.

    Attributes:
        command: What was run.
        device: On which card.
        rank: Which of the ranks.
        world_size: How many there are.
        exit_code: The script's own.
        recording: What was counted; none if the script never used the device.
    """

    command: tuple[str, ...]
    device: Device
    rank: int
    world_size: int
    exit_code: int
    recording: Recording | None

    @property
    def fits(self) -> bool:
        """Whether the script got through without running out of memory."""
        return self.recording is None or self.recording.out_of_memory is None


def rehearse(
    command: Sequence[str],
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    ranks: Sequence[int] | None = None,
    steps: int | None = None,
    snapshot: Path | None = None,
    venv: Path | None = None,
) -> Iterator[Rehearsal]:
    """Run a command on virtual GPUs, rank by rank; what it prints goes through.

    Args:
        command: The command line: ``python train.py ...``, ``torchrun ...``, ``accelerate launch``.
        gpu: Name of the card or its capacity; by default the 80 GB A100.
        gpus: How many; each rank of the command has one.
        ranks: Which ranks to run; by default all.
        steps: End the script after so many optimizer steps.
        snapshot: Where torch's memory snapshot goes; of several ranks, with the rank in its name.
        venv: The user's own environment in place of memplan's.

    Raises:
        MissingError: The virtual GPU is not set up.
        ConfigError: The command, the card or a rank cannot be used.
    """
    device = device_of(gpu)
    check_command(command)
    environment = require(venv)
    plan = Plan.of(command, environment, device, gpus)
    for rank in chosen(ranks, plan.world_size):
        yield one_rank(plan, device, environment, rank, steps, of_rank(snapshot, plan, rank))


def device_of(gpu: str | None) -> Device:
    """The card; without a name, the one whose kernels are assumed everywhere."""
    return load_device("a100-80gb" if gpu is None else gpu)


def check_command(command: Sequence[str]) -> None:
    """Refuse a command that cannot be one."""
    if not command:
        raise ConfigError(
            "rehearse: no command; write it after --, as in memplan rehearse --gpu a10g -- "
            "python train.py."
        )
    script = next((word for word in command if word.endswith(".py")), None)
    if script is not None and not Path(script).expanduser().exists():
        raise ConfigError(f"{script}: no such file.")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process of a command is.

    Attributes:
        command: Its words.
        settings: What its launcher sets in its environment.
        world_size: How many processes there are.
        distributed: Whether they are told so.
    """

    command: tuple[str, ...]
    settings: Mapping[str, str]
    world_size: int
    distributed: bool

    @classmethod
    def of(
        cls, command: Sequence[str], environment: Environment, device: Device, gpus: int | None
    ) -> Plan:
        """The plan of a command line; a launcher's own is read by its own parser."""
        for words, name in LAUNCHERS.items():
            if tuple(command[: len(words)]) == words:
                variables = environment_variables(environment, device, inherited=os.environ)
                plan = ask_launcher(name, command[len(words) :], environment.python, variables)
                size = gpus or plan["processes"] or 1
                return cls(tuple(plan["command"]), plan["environment"], checked(size), True)
        size = checked(1 if gpus is None else gpus)
        return cls(tuple(command), {}, size, size > 1)


def ask_launcher(
    name: str, words: Sequence[str], python: Path, variables: Mapping[str, str]
) -> dict[str, Any]:
    """What a launcher would start."""
    module = "memplan.evidence.recorder.launchers"
    with importable() as path:
        done = subprocess.run(
            [str(python), "-m", module, name, *words],
            env=child_environment(variables, path),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = " ".join(done.stderr.split())[-SHOWN:]
        raise ConfigError(f"{name}: its command line cannot be read: {said}")
    plan: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return plan


def checked(size: int) -> int:
    """A number of devices that the virtual GPU can have."""
    if not 1 <= size <= MAX_RANKS:
        raise ConfigError(f"gpus: expected 1 to {MAX_RANKS}, got {size}.")
    return size


def chosen(ranks: Sequence[int] | None, size: int) -> Sequence[int]:
    """The ranks to run."""
    if ranks is None:
        return range(size)
    for rank in ranks:
        if not 0 <= rank < size:
            raise ConfigError(f"ranks: {rank} is none of the {size} ranks, 0 to {size - 1}.")
    return ranks


def of_rank(snapshot: Path | None, plan: Plan, rank: int) -> Path | None:
    """Where a rank's snapshot goes."""
    if snapshot is None or plan.world_size == 1:
        return snapshot
    return snapshot.with_name(f"{snapshot.stem}-rank{rank}{snapshot.suffix}")


def one_rank(
    plan: Plan,
    device: Device,
    environment: Environment,
    rank: int,
    steps: int | None,
    snapshot: Path | None,
) -> Rehearsal:
    """Run one rank of the command."""
    with tempfile.TemporaryDirectory(prefix="memplan-rehearse-") as out, watched_path() as path:
        notes = Path(out, "notes.txt")
        settings = {
            "out": out,
            "steps": steps,
            "snapshot": None if snapshot is None else str(snapshot.absolute()),
        }
        variables = {
            **environment_variables(
                environment, device, devices=plan.world_size, notes=notes, inherited=os.environ
            ),
            **plan.settings,
            **(rank_variables(rank, plan.world_size) if plan.distributed else {}),
            "PATH": f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            SETTINGS: json.dumps(settings),
        }
        code = run_script(command_words(plan.command, environment), variables, path)
        recording = read_recording(Path(out), notes)
    return Rehearsal(
        command=plan.command,
        device=device,
        rank=rank,
        world_size=plan.world_size,
        exit_code=code,
        recording=recording,
    )


def command_words(command: Sequence[str], environment: Environment) -> list[str]:
    """The command with the environment's Python in place of any."""
    first, *rest = command
    if first.endswith(".py"):
        return [str(environment.python), *command]
    if Path(first).name.startswith("python"):
        return [str(environment.python), *rest]
    own = environment.python.parent / first
    return [str(own) if own.exists() else first, *rest]


def run_script(words: list[str], variables: Mapping[str, str], path: str) -> int:
    """Run the script to its end; its output is the user's."""
    own = os.environ.get("PYTHONPATH", "")
    environment = child_environment({**variables, "PYTHONPATH": own}, path)
    try:
        return subprocess.run(words, env=environment, check=False).returncode
    except OSError as error:
        raise ConfigError(f"{words[0]}: cannot be started: {error.strerror}.") from None


def rank_variables(rank: int, size: int) -> dict[str, str]:
    """What ``torchrun`` tells a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "memplan",
    }


@contextmanager
def watched_path() -> Iterator[str]:
    """A folder for the path of modules, from which every Python loads the recorder."""
    with importable() as path:
        Path(path, "sitecustomize.py").write_text(SITE, encoding="utf-8")
        yield path


def read_recording(folder: Path, notes: Path) -> Recording | None:
    """The recording of the process that used the device most; what the device itself noted."""
    found = [read_one(path) for path in folder.glob("*.json")]
    if not found:
        return None
    recording = max(found, key=lambda r: (r.steps, r.peak_allocated_bytes))
    said = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return replace(recording, notes=(*recording.notes, *dict.fromkeys(said)))


def read_one(path: Path) -> Recording:
    """A recording as a process left it."""
    try:
        return Recording.from_mapping(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise MemplanError(
            f"the script's process left a recording that is torn: {error}."
        ) from None
