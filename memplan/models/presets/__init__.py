"""Presets: Hugging Face ``config.json`` contents, one file each, read on demand.

``aliases.json`` leads from short names and repositories to the file, so that looking up one model
opens two small files and not all of them; a test keeps the two in agreement.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ALIASES = "aliases.json"
PRIVATE = ("_repo", "_source")


def preset_names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.json") if p.name != ALIASES))


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    with (FOLDER / ALIASES).open(encoding="utf-8") as file:
        aliases: dict[str, str] = json.load(file)
    return aliases


def preset_aliases() -> dict[str, str]:
    """Every name, alias and repository in lower case, with the preset that it means."""
    return {**_aliases(), **{name: name for name in preset_names()}}


def preset_name(spec: str) -> str | None:
    """Name of the preset that ``spec`` means, in any case; None if there is none."""
    key = spec.strip().lower()
    if key in _aliases():
        return _aliases()[key]
    return key if key in preset_names() else None


def load_preset(name: str) -> dict[str, Any]:
    """The ``config.json`` of a preset, without the keys that record where it came from."""
    return {k: v for k, v in preset_record(name).items() if k not in PRIVATE}


def preset_record(name: str) -> dict[str, Any]:
    """The file of a preset: its ``config.json``, with ``_repo`` and ``_source``."""
    with (FOLDER / f"{name}.json").open(encoding="utf-8") as file:
        record: dict[str, Any] = json.load(file)
    return record
