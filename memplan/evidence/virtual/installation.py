"""Makes the environment of the virtual GPU, in stages that are not done twice.

A stage leaves a stamp that holds what it was asked for, written when it is done: a second setup
passes over it, and one after Ctrl-C goes on behind the last stamp.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memplan.errors import MissingError
from memplan.evidence.virtual import build
from memplan.evidence.virtual import environment as places
from memplan.evidence.virtual.environment import Environment

Progress = Callable[[str], None]
TORCH = "torch==2.14.1"
# What torch and the training libraries import, but for NVIDIA's libraries and Triton.
DEPENDENCIES = (
    *("sympy", "networkx", "jinja2", "fsspec", "filelock", "typing_extensions", "numpy"),
    *("setuptools>=77", "huggingface_hub", "tokenizers", "safetensors", "regex", "pyyaml"),
    *("packaging", "psutil", "tqdm", "requests"),
)
TRAINING = (
    *("transformers==5.18.0", "peft==0.21.2", "accelerate==1.15.0", "bitsandbytes==0.50.2"),
)
# What some optimizers of `TrainingArguments.optim`, `kernels: liger` and some quantisations ask for
# beside these. A run does without, unless it asks for one.
FURTHER = (
    *("apollo-torch==1.0.3", "grokadamw==0.1.2", "schedulefree==1.4.1", "liger-kernel==0.8.5"),
    *("torchao==0.18.0", "hqq==0.2.8.post1", "einops==0.8.2", "termcolor==3.3.0"),
)
NEEDED_BYTES = 2_500_000_000  # 1.7 GB installed, and what pip unpacks
FINISHING = 2  # what `_finish` does: the libraries, and the check
OLDEST_PYTHON = (3, 10)
TOOLS = ("gcc", "readelf", "nm")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: a stamp's name, what is shown, and the command.

    Attributes:
        is_optional: Whether setup goes on where it fails; the next setup tries again.
    """

    name: str
    title: str
    command: tuple[str, ...]
    is_optional: bool = False


def stages(root: Path) -> tuple[Stage, ...]:
    """What makes the environment at ``root``, in order."""
    python = str(places.interpreter(root))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    return (
        Stage("venv", "a Python environment", (sys.executable, "-m", "venv", "--clear", str(root))),
        Stage(
            "torch",
            f"{TORCH} without NVIDIA's libraries (about 0.5 GB to download)",
            (*pip, "--no-deps", TORCH),
        ),
        Stage("dependencies", "what it needs", (*pip, *DEPENDENCIES)),
        Stage("training", ", ".join(TRAINING), (*pip, "--no-deps", *TRAINING)),
        Stage(
            "further",
            f"for some optimizers, kernels and quantisations: {', '.join(FURTHER)}",
            (*pip, "--no-deps", *FURTHER),
            is_optional=True,
        ),
    )


def install(progress: Progress) -> Environment:
    """Make memplan's own environment, the libraries for it, and check them.

    Raises:
        MissingError: It cannot work here, or a stage failed.
    """
    check_system()
    home = places.home()
    with locked(home):
        (home / places.CHOSEN).unlink(missing_ok=True)
        root = places.own_environment()
        todo = stages(root)
        found = places.find()
        if found and all(is_done(home, stage) for stage in todo):
            return found
        check_space(home, done=is_done(home, todo[1]))
        (home / places.READY).unlink(missing_ok=True)
        count = len(todo) + FINISHING
        for number, stage in enumerate(todo, 1):
            run_stage(home, stage, partial(_numbered, progress, number, count))
        made = _finish(root, lambda text, n: _numbered(progress, n + len(todo), count, text))
        (home / places.READY).touch()
        return made


def use(progress: Progress, root: Path) -> Environment:
    """Build the libraries for the torch of the user's own environment, and check them.

    Raises:
        MissingError: It cannot work here, or that torch is no CUDA build.
    """
    check_system()
    home = places.home()
    places.cuda_of(places.site_packages(root))
    with locked(home):
        found = places.find(root)
        if not found:
            found = _finish(root, lambda text, n: _numbered(progress, n, FINISHING, text))
        (home / places.CHOSEN).write_text(f"{root}\n", encoding="utf-8")
        return found


def check_system() -> None:
    """Say clearly where it cannot work.

    Raises:
        MissingError: Another system, processor, C library or Python, or no C compiler.
    """
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise MissingError(
            f"the virtual GPU needs Linux on x86_64, which torch's CUDA build is made for; this "
            f"is {machine}. It runs in a Linux container or in WSL2."
        )
    if platform.libc_ver()[0] != "glibc":
        raise MissingError("the virtual GPU needs glibc, as torch's CUDA build does; not musl.")
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise MissingError(
            f"the virtual GPU needs Python 3.10 or later; this is {platform.python_version()}."
        )
    if any(character in str(places.home()) for character in ":;"):
        raise MissingError(f"{places.home()}: a colon there would part the library path.")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise MissingError(
            f"{', '.join(missing)}: not found. The virtual GPU is built with gcc and binutils: "
            "install them (Debian, Ubuntu: apt install gcc libc6-dev binutils)."
        )


def check_space(home: Path, *, done: bool) -> None:
    """Refuse where the disk cannot hold it; ``done`` when the large part is there already.

    Raises:
        MissingError: Less than ``NEEDED_BYTES`` is free.
    """
    free = shutil.disk_usage(home).free
    if not done and free < NEEDED_BYTES:
        raise MissingError(
            f"{home}: {free / 1e9:.1f} GB free; the virtual GPU's environment needs "
            f"{NEEDED_BYTES / 1e9:.1f} GB. Set MEMPLAN_HOME to a folder on another disk."
        )


def run_stage(home: Path, stage: Stage, progress: Progress) -> None:
    """Run a stage unless its stamp says that the same was done.

    Raises:
        MissingError: Its command failed, and it is not optional.
    """
    if is_done(home, stage):
        return
    progress(stage.title)
    if stage.name == "venv":  # begun anew, and so is all behind it
        for old in home.glob("stage-*"):
            old.unlink()
    try:
        run_command(stage.command, stage.title)
    except MissingError as error:
        if not stage.is_optional:
            raise
        progress(f"left out: {error}")
        return
    _stamp(home, stage).write_text(_stamp_text(stage), encoding="utf-8")


def is_done(home: Path, stage: Stage) -> bool:
    """Whether the stage's stamp says that the same command was done."""
    stamp = _stamp(home, stage)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _stamp_text(stage)


def _stamp_text(stage: Stage) -> str:
    """The command; of this Python, its version: what it is called does not matter."""
    version = f"Python {platform.python_version()}"
    return "\n".join(version if part == sys.executable else part for part in stage.command)


def run_command(command: Sequence[str], title: str, **variables: str) -> str:
    """Output of a command, nothing of the caller's Python in its environment.

    Raises:
        MissingError: It failed; with the last line that it wrote.
    """
    dropped = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER", "PIP_PREFIX")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        command, env=kept | variables, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise MissingError(f"setting up the virtual GPU: {title}: {reason}")
    return done.stdout


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Keep a second setup out; the lock ends with the process.

    Raises:
        MissingError: Another setup is at work there, or nothing can be written.
    """
    import fcntl  # where it is not, check_system has refused

    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "lock").open("w")
    except OSError as error:
        raise MissingError(
            f"{home}: {error.strerror}. Set MEMPLAN_HOME to another folder."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MissingError(f"{home}: another setup is at work there; wait for it.") from None
        yield


def _finish(root: Path, progress: Callable[[str, int], None]) -> Environment:
    """Build for the torch at ``root`` and check what was built."""
    for left in places.home().glob(f"{build.UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    packages = places.site_packages(root)
    cuda = places.cuda_of(packages)
    progress("the libraries of the virtual GPU", 1)
    libraries = build.cuda_libraries(packages, cuda)
    folder = build.build(places.home(), libraries, cuda)
    made = Environment(places.interpreter(root), folder, places.versions(packages))
    progress("a check of torch's memory accounting on it", 2)
    try:
        check(made)
    except MissingError:
        (folder / build.COMPLETE).unlink(missing_ok=True)  # not to be found as if it worked
        raise
    return made


def check(env: Environment) -> str:
    """Output of the self-test in ``env``.

    Raises:
        MissingError: torch does not start there, or a check failed.
    """
    from memplan.evidence.virtual.launch import environment_variables
    from memplan.hardware import load_device

    variables = environment_variables(env, load_device("a100-80gb"))
    program = Path(__file__).with_name("selftest.py")
    return run_command((str(env.python), str(program)), "self-test", **variables)


def _numbered(progress: Progress, number: int, of: int, text: str) -> None:
    progress(f"[{number}/{of}] {text}")


def _stamp(home: Path, stage: Stage) -> Path:
    return home / f"stage-{stage.name}"
