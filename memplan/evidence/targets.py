"""Where a measurement runs: the card of this machine, or a virtual one of the named kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memplan.errors import ConfigError, MissingError, UnsupportedError
from memplan.evidence.devices import rank_alone, world_of
from memplan.evidence.nvml import driver_version
from memplan.hardware import device_names, load_device

PROBE_SECONDS = 300
CAPACITY_TOLERANCE = 0.05  # of one title, cards differ by whole steps of capacity
ALLOCATOR_VARIABLES = (
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
)
OTHERWISE = "Or measure on a virtual card: memplan measure --virtual --gpu NAME."
PROBE = """
import importlib.util, json, os
libraries = ("torch", "transformers", "peft", "accelerate")
told = {"missing": [n for n in libraries if importlib.util.find_spec(n) is None]}
if not told["missing"]:
    import torch
    told.update(torch=torch.__version__, cuda=torch.version.cuda, count=torch.cuda.device_count())
    local = int(os.environ["MEMPLAN_LOCAL_RANK"])
    if torch.cuda.is_available() and local < told["count"]:
        p = torch.cuda.get_device_properties(local)
        told.update(name=p.name, total_bytes=p.total_memory, uuid=str(getattr(p, "uuid", "")))
print("memplan-probe " + json.dumps(told))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A Python with torch, and the card that it sees.

    Attributes:
        label: ``cuda`` or ``virtual``.
        python: The interpreter that runs it.
        gpu: The workload's key for the card: its name in the catalogue, or its capacity.
        title: Name that CUDA reports.
        environment: What the process needs besides this one's environment.
        uuid: Of the card, for the driver; empty on a virtual one.
        driver: Its version.
        rank: Of several ranks, which one runs there.
        world_size: How many there are.
    """

    label: str
    python: str
    gpu: str
    title: str
    environment: dict[str, str] = field(default_factory=dict)
    uuid: str = ""
    driver: str | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def is_virtual(self) -> bool:
        """Whether the card is."""
        return self.label == "virtual"

    @property
    def runs_alone(self) -> bool:
        """Whether the other ranks are not there."""
        return self.is_virtual and self.world_size > 1

    def ranks(self, size: int) -> tuple[Target, ...]:
        """Where a run over so many devices is measured by this process, rank by rank."""
        if not self.is_virtual or size == 1:
            return (self,)
        return tuple(
            replace(
                self, rank=r, world_size=size, environment=self.environment | rank_alone(r, size)
            )
            for r in range(size)
        )


def find_target(label: str, gpu: str | None = None, *, python: str | None = None) -> Target:
    """The target of a label: ``cuda`` or ``virtual``.

    Args:
        label: Which kind.
        gpu: The kind of card; a real one is found, and must be that kind if it is named.
        python: The interpreter that has torch; by default this one, or the virtual GPU's own.

    Raises:
        MissingError: This machine lacks what it takes.
    """
    check_environment(os.environ)
    if label == "virtual":
        return virtual_target(gpu, python=python)
    return cuda_target(gpu, python=python or sys.executable, world=world_of(os.environ))


def check_environment(variables: Mapping[str, str]) -> None:
    """Refuse what would make the measurement one of something else."""
    for name in ALLOCATOR_VARIABLES:
        if variables.get(name):
            raise UnsupportedError(
                f"{name} is set to {variables[name][:80]!r}; a measurement is of the allocator as "
                "it is by default. Unset it."
            )


def virtual_target(gpu: str | None, *, python: str | None = None) -> Target:
    """A virtual card of the named kind."""
    if gpu is None:
        raise ConfigError(f"gpu: name the virtual card: one of {', '.join(device_names())}.")
    device = load_device(gpu)
    from memplan.evidence.virtual.environment import require
    from memplan.evidence.virtual.launch import environment_variables

    found = require(None if python is None else Path(python).parent.parent)
    return Target(
        label="virtual",
        python=str(found.python),
        gpu=device.name,
        title=device.title,
        environment=environment_variables(found, device),
    )


def cuda_target(gpu: str | None, *, python: str, world: tuple[int, int, int] = (0, 1, 0)) -> Target:
    """The card that torch sees on this machine: the first, or that of this process of many.

    Raises:
        MissingError: There is no torch, or no card.
        ConfigError: It is another one than was named.
    """
    rank, size, local = world
    facts = probe(python, local)
    if facts["missing"]:
        raise MissingError(
            f"{python} has no {', '.join(facts['missing'])}; pip install 'memplan[evidence]' "
            f"there, or name another interpreter with --python. {OTHERWISE}"
        )
    if "name" not in facts:
        raise MissingError(f"{_why_no_card(facts, local)} {OTHERWISE}")
    found = card_key(facts["name"], facts["total_bytes"])
    check_named(gpu, found, facts)
    return Target(
        label="cuda",
        python=python,
        gpu=found,
        title=facts["name"],
        uuid=facts["uuid"],
        driver=driver_version(),
        rank=rank,
        world_size=size,
    )


def _why_no_card(facts: Mapping[str, Any], local: int) -> str:
    if facts.get("count"):
        return (
            f"this is process {local} of this machine, and torch sees {facts['count']} CUDA GPUs: "
            f"start {facts['count']} processes at most."
        )
    if facts["cuda"] is None:
        return f"torch {facts['torch']} was built without CUDA."
    return f"torch {facts['torch']} sees no CUDA GPU on this machine."


def probe(python: str, local: int = 0) -> dict[str, Any]:
    """What an interpreter has: libraries, and the card of that number that its torch sees."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            env=os.environ | {"MEMPLAN_LOCAL_RANK": str(local)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingError(f"{python}: cannot be started: {reason}.") from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"{python}: torch did not load within {PROBE_SECONDS} s.") from None
    for line in done.stdout.splitlines():
        if line.startswith("memplan-probe "):
            facts: dict[str, Any] = json.loads(line.partition(" ")[2])
            return facts
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise MissingError(f"{python}: torch cannot be used: {last[:300]}.")


def card_key(title: str, total_bytes: int) -> str:
    """The catalogue's name of a card, or its capacity where it has none.

    >>> card_key("NVIDIA A10G", 23_836_033_024), card_key("NVIDIA X1", 8 << 30)
    ('a10g', '8589934592')
    """
    for name in device_names():
        device = load_device(name)
        capacity = device.capacity_bytes or 0
        if device.title == title and abs(capacity - total_bytes) <= CAPACITY_TOLERANCE * capacity:
            return name
    return str(total_bytes)


def check_named(gpu: str | None, found: str, facts: Mapping[str, Any]) -> None:
    """Refuse a card that was named and is another one than the card that is there."""
    if gpu is not None and load_device(gpu).name != found:
        raise ConfigError(
            f"gpu: {gpu} was named, but the card here is {facts['name']} with "
            f"{facts['total_bytes']:,} bytes. Leave gpu out, or use --virtual."
        )
