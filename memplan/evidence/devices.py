"""Which devices a run is spread over: those of ``torchrun``'s processes, or virtual ones.

On real cards each process measures its own rank. On virtual ones a single process runs the ranks
one at a time, each on a card of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memplan.errors import ConfigError, UnsupportedError
from memplan.workload import DEFAULTS

RUN = ("single", "ddp", "fsdp2")
"""The strategies that the runner runs."""
MAX_RANKS = 16  # one at a time; a larger run's ranks are as those of a smaller one, with less each
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
HOW = (
    "torchrun --nproc-per-node 2 -m memplan measure --strategy {strategy} ...; or, on virtual "
    "cards, memplan measure --virtual --gpu NAME --strategy {strategy} --dp-size 2"
)


def world_of(variables: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, world size, local rank) that ``torchrun`` set; without it, one process.

    Raises:
        ConfigError: The variables cannot be those of a process of ``torchrun``.

    >>> world_of({}), world_of({"WORLD_SIZE": "1", "RANK": "0"})
    ((0, 1, 0), (0, 1, 0))
    """
    size = _number(variables, "WORLD_SIZE", 1)
    if size < 2:
        return 0, 1, 0
    missing = [name for name in NEEDED if not variables.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} not set: start measure with torchrun, "
            "which sets them all, or unset WORLD_SIZE."
        )
    rank, local = _number(variables, "RANK", 0), _number(variables, "LOCAL_RANK", 0)
    if rank >= size:
        raise ConfigError(f"RANK is {rank}, but WORLD_SIZE is {size}.")
    return rank, size, local


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name) or str(default)
    if not text.isdecimal() or len(text) > 6:
        raise ConfigError(f"{name}: expected a number, got {text[:20]!r}.")
    return int(text)


def check_strategy(keys: Mapping[str, Any]) -> str:
    """The strategy of a run, if the runner runs it."""
    strategy = str(keys.get("strategy") or "single").strip().lower()
    if strategy in ("zero1", "zero2", "zero3"):
        raise UnsupportedError(f"strategy: {strategy}: measure runs {', '.join(RUN)}.")
    if strategy != "single" and keys.get("loop", DEFAULTS["loop"]) == "trainer":
        raise UnsupportedError(
            f"strategy: {strategy}: runs in the plain loop; the Trainer runs on one device so far."
        )
    return strategy


def with_devices(keys: Mapping[str, Any], world_size: int, *, virtual: bool) -> dict[str, Any]:
    """A run's keys with the number of devices that it has, if it goes with the processes.

    Args:
        keys: Of a workload.
        world_size: Processes that ``torchrun`` started.
        virtual: Whether it is to run on virtual cards.

    Raises:
        ConfigError: It does not; the error says what to add.
    """
    strategy, given = check_strategy(keys), keys.get("dp_size")
    if virtual:
        return _on_virtual(keys, strategy, world_size)
    if world_size > 1 and strategy == "single":
        raise ConfigError(
            f"strategy: torchrun started {world_size} processes (WORLD_SIZE), and the run is on "
            "one device; add --strategy ddp or --strategy fsdp2, or start it without torchrun."
        )
    if world_size == 1 and strategy in RUN[1:]:
        how = HOW.format(strategy=strategy)
        raise ConfigError(f"strategy: {strategy} takes a process for each GPU: {how}.")
    if world_size > 1 and given not in (None, world_size):
        raise ConfigError(
            f"dp_size: {given}, but torchrun started {world_size} processes; leave dp_size out, or "
            f"start it with --nproc-per-node {given}."
        )
    return {**keys, "dp_size": world_size} if world_size > 1 else dict(keys)


def _on_virtual(keys: Mapping[str, Any], strategy: str, world_size: int) -> dict[str, Any]:
    given = keys.get("dp_size")
    if world_size > 1:
        raise ConfigError(
            "--virtual: runs every rank by itself, one at a time; start it without torchrun, with "
            f"--dp-size {world_size}."
        )
    if strategy != "single" and isinstance(given, int) and given > MAX_RANKS:
        raise ConfigError(f"dp_size: {given}: at most {MAX_RANKS} ranks, one at a time.")
    return dict(keys)


def rank_alone(rank: int, size: int) -> dict[str, str]:
    """The environment of one rank whose others are not there, on a machine with one card."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": "0", "GROUP_RANK": str(rank), "ROLE_RANK": str(rank)},
        **{"WORLD_SIZE": str(size), "ROLE_WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "memplan"},
    }
