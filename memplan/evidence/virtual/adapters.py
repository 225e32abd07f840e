"""An environment beside the virtual GPU's, for the ``adapters`` library.

The library pins a release of transformers, which must not replace the one that all else is run by.
So it gets an environment of its own with those two alone; for torch and the rest it looks into the
environment beside it. One more of everything was the alternative: 1.7 GB again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from memplan.errors import MissingError
from memplan.evidence.virtual import environment as places
from memplan.evidence.virtual import installation
from memplan.evidence.virtual.environment import Environment

METHOD = "bottleneck_adapter"
WORD = "adapters"
"""What ``memplan rehearse --setup --with`` calls it."""
PACKAGES = (
    *("adapters==1.3.0", "transformers==4.57.6"),
    *("tokenizers>=0.22.0,<=0.23.0", "huggingface_hub>=0.34.0,<1.0"),
)
BESIDE = "beside.pth"  # a line in it is a folder where Python looks for packages, too
READY = "ready"
SET_UP = f"{places.SET_UP} --with {WORD}"


def environment_for(method: str, base: Environment) -> Environment:
    """What runs a method: ``base``, or what stands beside it.

    Raises:
        MissingError: The method takes the ``adapters`` library, which is not set up.
    """
    if method != METHOD:
        return base
    found = find(base)
    if found is None:
        raise MissingError(
            f"method: {METHOD} is run by the adapters library in an environment of its own, which "
            f"is not set up. {SET_UP}"
        )
    return found


def find(base: Environment) -> Environment | None:
    """The environment beside ``base``, if it was set up."""
    root = folder_of(base)
    if not (root / READY).is_file():
        return None
    (packages,) = root.glob("lib/python3*/site-packages")
    versions = {**base.versions, **places.versions(packages)}
    return replace(base, python=places.interpreter(root), versions=versions)


def setup(progress: Callable[[str], None], base: Environment) -> Environment:
    """Make what ``find`` finds.

    Args:
        progress: Called with a line before each step.
        base: The environment of the virtual GPU.

    Raises:
        MissingError: A command failed, or another setup is at work.
    """
    found = find(base)
    if found is not None:
        return found
    root = folder_of(base)
    with installation.locked(places.home()):
        progress("[1/2] a Python environment beside the virtual GPU's")
        command = (str(base.python), "-m", "venv", "--clear", str(root))
        installation.run_command(command, "a Python environment")
        (packages,) = root.glob("lib/python3*/site-packages")
        (packages / BESIDE).write_text(f"{packages_of(base)}\n", encoding="utf-8")
        title = ", ".join(PACKAGES[:2])
        progress(f"[2/2] {title}")
        pip = (str(places.interpreter(root)), "-m", "pip", "install", "--quiet", "--no-deps")
        installation.run_command((*pip, "--disable-pip-version-check", *PACKAGES), title)
        (root / READY).touch()
    made = find(base)
    assert made is not None
    return made


def folder_of(base: Environment) -> Path:
    """Where the environment beside ``base`` is, whether or not it is there."""
    name = sha256(str(packages_of(base)).encode()).hexdigest()[:16]
    return places.home() / f"{WORD}-{name}"


def packages_of(base: Environment) -> Path:
    """The folder of packages that has torch."""
    return places.site_packages(base.python.parent.parent)
