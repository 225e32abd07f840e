"""Where a Python with the CUDA build of torch is, and the libraries that stand in for a GPU.

Finding them starts no process and imports no torch: versions are read from the names of installed
packages, and what was built is looked up by a hash of what it was built for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from memplan.errors import MissingError
from memplan.evidence.virtual import build

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
CHOSEN = "chosen-environment"  # file with the path of the environment that setup was given last
READY = "ready"  # stamp of memplan's own environment, written when its last stage is done
SET_UP = "Set it up once with: memplan rehearse --setup"


@dataclass(frozen=True, slots=True)
class Environment:
    """What runs on the virtual GPU.

    Attributes:
        python: Interpreter that has torch.
        libraries: Folder of the libraries built for that torch.
        versions: Versions of what is installed, of ``PACKAGES``.
    """

    python: Path
    libraries: Path
    versions: Mapping[str, str]


def home() -> Path:
    """Folder of the virtual GPU: of ``MEMPLAN_HOME``, else of the user's cache."""
    given = os.environ.get("MEMPLAN_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(given or Path(cache) / "memplan").expanduser() / "virtual-gpu").absolute()


def own_environment() -> Path:
    """Environment that memplan makes, whether or not it is there."""
    return home() / "venv"


def find(venv: Path | None = None) -> Environment | None:
    """What was set up: for ``venv``, else for what setup was given last; None when nothing was."""
    try:
        root = venv.expanduser().absolute() if venv else chosen_environment()
        if root == own_environment() and not (home() / READY).is_file():
            return None
        packages = site_packages(root)
        cuda = cuda_of(packages)
        folder = home() / build.folder_name(build.cuda_libraries(packages, cuda), cuda)
    except (MissingError, OSError):
        return None
    if not build.is_complete(folder):
        return None
    return Environment(interpreter(root), folder, versions(packages))


def require(venv: Path | None = None) -> Environment:
    """What was set up, or an error that says how to.

    Raises:
        MissingError: Nothing was set up.
    """
    found = find(venv)
    if found:
        return found
    if venv:
        option = f"{SET_UP} --venv {venv}"
        raise MissingError(f"the virtual GPU is not set up for {venv}. {option}")
    raise MissingError(f"the virtual GPU is not set up. {SET_UP}")


def setup(progress: Callable[[str], None], venv: Path | None = None) -> Environment:
    """Make what ``find`` finds, stage by stage; what an earlier try finished is kept.

    Args:
        progress: Called with a line before each stage.
        venv: The user's own environment, to be used as it is; None: memplan makes one.

    Raises:
        MissingError: It cannot work on this system, or a stage failed.
    """
    from memplan.evidence.virtual import installation

    if venv:
        return installation.use(progress, venv.expanduser().absolute())
    return installation.install(progress)


def chosen_environment() -> Path:
    """The environment that setup was given last, else memplan's own."""
    note = home() / CHOSEN
    if not note.is_file():
        return own_environment()
    return Path(note.read_text(encoding="utf-8").strip())


def interpreter(root: Path) -> Path:
    """Python of an environment."""
    return root / "bin" / "python"


def site_packages(root: Path) -> Path:
    """Where torch is installed in the environment at ``root``.

    Raises:
        MissingError: There is no environment, or it has no torch.
    """
    if not interpreter(root).exists():
        raise MissingError(f"{root}: no Python environment there (expected {interpreter(root)}).")
    folders = sorted(root.glob("lib/python3*/site-packages/torch/version.py"))
    if not folders:
        raise MissingError(f"{root}: torch is not installed there.")
    return folders[-1].parents[1]


def cuda_of(packages: Path) -> str:
    """Version of CUDA that the installed torch was built for, read without importing it.

    Raises:
        MissingError: It is no CUDA build, or of a CUDA that we do not know.
    """
    text = (packages / "torch" / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    version = match[1] if match else ""
    if version.partition(".")[0] not in ("12", "13"):
        what = f"built for CUDA {version}" if version else "not a CUDA build"
        raise MissingError(
            f"{packages / 'torch'}: this torch is {what}; the virtual GPU needs one built for "
            "CUDA 12 or 13 (the default of pip on Linux x86_64)."
        )
    return version


def versions(packages: Path) -> Mapping[str, str]:
    """Versions of ``PACKAGES``, from the names of their metadata folders."""
    found = {}
    for package in PACKAGES:
        for folder in packages.glob(f"{package}-*.dist-info"):
            found[package] = folder.name.removesuffix(".dist-info").partition("-")[2]
    return MappingProxyType(found)
