"""The keys of a LoRA config that pick modules beyond ``target_modules``, checked as PEFT does.

Source: huggingface/peft v0.21.2 peft/tuners/lora/config.py ``LoraConfig.__post_init__``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memplan import checks
from memplan.errors import ConfigError

MAX_LAYER = MAX_RANK = 1 << 20
WHY = "no model has as many"


def check_selectors(peft_config: Mapping[str, Any], target_modules: object) -> None:
    """Check every selector that is given, and what goes together.

    Raises:
        ConfigError: PEFT would refuse it, or make nothing of it.
    """
    given = {key: value for key, value in peft_config.items() if value is not None}
    for key, check in CHECKS.items():
        if key in given:
            check(given[key], f"peft_config: {key}")
    for key in ("layers_to_transform", "layers_pattern"):
        if key in given and isinstance(target_modules, str):
            raise ConfigError(f"peft_config: {key} goes with a list of target_modules, no text.")
    if given.get("layers_pattern") and "layers_to_transform" not in given:
        raise ConfigError("peft_config: layers_pattern needs layers_to_transform.")


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One item or several, as several."""
    return tuple(value) if isinstance(value, (list, tuple, set)) else (value,)


def _layers(value: Any, name: str) -> None:
    for item in as_tuple(value):
        checks.integer(item, name, minimum=0, maximum=MAX_LAYER, why=WHY)


def _patterns(value: Any, name: str) -> None:
    for item in as_tuple(value):
        _pattern(item, name)


def _pattern(value: Any, name: str) -> None:
    try:
        re.compile(checks.text(value, name))
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{name}: {value!r} is no regular expression: {error}.") from None


def _ranks(value: Any, name: str) -> None:
    for pattern, rank in _items(value, name):
        _pattern(pattern, name)
        checks.integer(rank, name, minimum=1, maximum=MAX_RANK, why=WHY)


def _alphas(value: Any, name: str) -> None:
    for pattern, alpha in _items(value, name):
        _pattern(pattern, name)
        checks.number(alpha, name)


def _items(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: expected a mapping of names to numbers, got {value!r}.")
    return value.items()


CHECKS = {
    "layers_to_transform": _layers,
    "layers_pattern": _patterns,
    "exclude_modules": _patterns,
    "rank_pattern": _ranks,
    "alpha_pattern": _alphas,
}
