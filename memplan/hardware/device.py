"""A card of the catalogue, or a bare capacity, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from memplan import files
from memplan.errors import ConfigError, unknown_name
from memplan.units import KIB, MIB, parse_bytes

CATALOGUE = Path(__file__).parent / "gpus.toml"
DEFAULT = "a100-80gb"
MAX_CAPACITY_BYTES = 1 << 50
# transformers v5.18.0 modeling_utils.py `caching_allocator_warmup` asks for a block of all but
# 1.2 GiB of the card, and fails where that is negative.
MIN_CAPACITY_BYTES = 1_288_490_189


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU.

    Attributes:
        name: Name in the catalogue, the capacity as given, or that of the assumed kernels.
        title: Name that CUDA reports.
        compute_capability: (major, minor).
        sm_count: Streaming multiprocessors.
        threads_per_sm: Most resident threads of one of them.
        shared_memory_per_block: Most shared memory a block may opt in to. [bytes]
        l2_cache_bytes: Level 2 cache. [bytes]
        capacity_bytes: ``total_memory`` as CUDA reports it; None: no capacity given. [bytes]
        context_bytes: What a CUDA context with torch's kernels takes of it; cited. [bytes]
        aliases: Other names.
        source: Where the capacity comes from.
        context_source: Where the size of the context comes from.
        assumed: What was assumed for want of a card, empty for a card of the catalogue.
    """

    name: str
    title: str
    compute_capability: tuple[int, int]
    sm_count: int
    threads_per_sm: int
    shared_memory_per_block: int
    l2_cache_bytes: int
    capacity_bytes: int | None
    context_bytes: int
    aliases: tuple[str, ...] = ()
    source: str = ""
    context_source: str = ""
    assumed: str = ""


def load_device(spec: str | int | None) -> Device:
    """The card of a name, of a capacity such as ``24GiB``, or of nothing: the default's kernels.

    Raises:
        ConfigError: No card has that name and it is no capacity.

    Example:
        >>> load_device("A10G").compute_capability, load_device("24GiB").capacity_bytes >> 30
        ((8, 6), 24)
    """
    if spec is None:
        note = "kernels and workspaces of compute capability 8.0"
        return replace(_catalogue()[DEFAULT], capacity_bytes=None, assumed=note)
    text = str(spec).strip()
    if text[:1] in set("0123456789+-.") and text.lower() not in _aliases():
        return _of_capacity(text)
    name = _aliases().get(text.lower().replace(" ", "-").replace("_", "-"))
    if name is None:
        raise unknown_name("gpu", spec, _catalogue())
    return _catalogue()[name]


def device_names() -> tuple[str, ...]:
    """Names of the catalogue, in its order."""
    return tuple(_catalogue())


def _of_capacity(text: str) -> Device:
    try:
        capacity = parse_bytes(text)
    except ConfigError as error:
        raise ConfigError(f"gpu: {error} Or a name: {', '.join(device_names())}.") from None
    if capacity > MAX_CAPACITY_BYTES:
        raise ConfigError(f"gpu: {text}: no card has more than {MAX_CAPACITY_BYTES >> 40} TiB.")
    if capacity < MIN_CAPACITY_BYTES:
        raise ConfigError(
            f"gpu: {text} is {capacity:,} bytes; transformers loads no model on a card below "
            "1.2 GiB. Write a size with its unit, such as 24GiB."
        )
    note = "kernels, workspaces and CUDA context of compute capability 8.0"
    base = _catalogue()[DEFAULT]
    return replace(base, name=text, title=text, capacity_bytes=capacity, aliases=(), assumed=note)


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, Device]:
    tables = files.read_mapping(CATALOGUE)
    architectures = tables["architectures"]
    return {name: _device(name, card, architectures) for name, card in tables["cards"].items()}


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    names = {name: name for name in _catalogue()}
    return names | {a: d.name for d in _catalogue().values() for a in d.aliases}


def _device(name: str, card: Mapping[str, Any], architectures: Mapping[str, Any]) -> Device:
    major, _, minor = card["compute_capability"].partition(".")
    architecture = architectures[card["compute_capability"]]
    return Device(
        name=name,
        title=card["title"],
        compute_capability=(int(major), int(minor)),
        sm_count=card["sm_count"],
        threads_per_sm=architecture["threads_per_sm"],
        shared_memory_per_block=architecture["shared_memory_per_block_kib"] * KIB,
        l2_cache_bytes=card["l2_cache_mib"] * MIB,
        capacity_bytes=card["capacity_bytes"],
        context_bytes=card["context_mib"] * MIB,
        aliases=tuple(card["aliases"]),
        source=card["source"],
        context_source=card["context_source"],
    )
