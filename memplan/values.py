"""Each key of a workload on its own: which values it takes, and their plain form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

from memplan import checks
from memplan.errors import ConfigError, UnsupportedError, unknown_name
from memplan.files import checked_mapping
from memplan.vocabulary import CHOICES, VERSIONS

MAX_TOKENS = 1 << 28  # a hundred times what any card holds; kernels are cut into pieces, one by one
MAX_COUNT = 1 << 20
NO_SUCH_RUN = "no run is that large"

COUNTS = {  # upper bounds: hardly a real run is above them
    "rank": MAX_COUNT,
    "num_virtual_tokens": MAX_COUNT,
    "micro_batch_size": MAX_TOKENS,
    "seq_len": MAX_TOKENS,
    "gradient_accumulation_steps": 1 << 10,
    "steps": 1 << 12,
}
WHY = {  # bounds of what is simulated one by one where it does not repeat exactly
    "gradient_accumulation_steps": "peaks settle within a few micro batches; ask for fewer",
    "steps": "peaks settle within a few steps; ask for fewer",
}
MESH_KEYS = ("dp_size", "tp_size", "pp_size", "cp_size", "ep_size")
CHECKPOINTING: dict[str, bool | str] = {
    **{"false": False, "none": False, "true": True},
    "reentrant": "reentrant",
}
FLAGS = ("prepare_kbit", "keep_outputs", "use_cache")


def checked_value(name: str, value: Any) -> Any:
    """The plain form of one key's value."""
    if name in CHOICES:
        return CHOICES[name].resolve(checks.text("none" if value is None else value, name), name)
    if name in COUNTS:
        why = WHY.get(name, NO_SUCH_RUN)
        return checks.integer(value, name, minimum=1, maximum=COUNTS[name], why=why)
    if name in FLAGS:
        return checks.flag(value, name)
    if name in MESH_KEYS:
        return _one(value, name)
    return SPECIAL[name](value)


def _one(value: Any, name: str) -> int:
    if checks.integer(value, name, minimum=1, maximum=MAX_COUNT) != 1:
        raise UnsupportedError(f"{name}: only 1 is modelled yet; strategy is single.")
    return 1


def _model(value: Any) -> str | dict[str, Any]:
    if isinstance(value, Mapping):
        return checked_mapping(value, "model")
    return checks.text(fspath(value) if isinstance(value, PathLike) else value, "model")


def _alpha(value: Any) -> float:
    number = checks.number(value, "alpha")
    return int(number) if number.is_integer() else number


def _dropout(value: Any) -> float:
    number = checks.number(value, "dropout", minimum=0.0)
    if number >= 1:
        raise ConfigError(f"dropout: expected a probability in [0, 1), got {value!r}.")
    return number


def _target_modules(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _target_text(checks.text(value, "target_modules"))
    modules = checks.names(value, "target_modules")
    if not modules:
        raise ConfigError("target_modules: the list is empty; leave the key out for the default.")
    return modules


def _target_text(value: str) -> str | tuple[str, ...]:
    """PEFT's two kinds of text, ``all-linear`` and a pattern; or, here, names with commas."""
    if value.lower() == "all-linear":
        return "all-linear"
    if re.fullmatch(r"[\w.]+(\s*,\s*[\w.]+)*", value):
        return checks.names(value, "target_modules")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"target_modules: {value!r} is neither names with commas, nor all-linear, nor a "
            f"regular expression: {error}."
        ) from None
    return value


def _modules_to_save(value: Any) -> tuple[str, ...]:
    return () if value is None else checks.names(value, "modules_to_save")


def _peft_config(value: Any) -> dict[str, Any]:
    return {} if value is None else checked_mapping(value, "peft_config")


def _activation_checkpointing(value: Any) -> bool | str:
    words: dict[str, bool | str] = {
        "false": False,
        "none": False,
        "true": True,
        "reentrant": "reentrant",
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ConfigError(
        f"activation_checkpointing: expected false, true or reentrant, got {value!r}."
    )


def _max_grad_norm(value: Any) -> float:
    return 0.0 if value is None else checks.number(value, "max_grad_norm", minimum=0.0)


def _versions(value: Any) -> dict[str, str]:
    versions = {} if value is None else checked_mapping(value, "versions")
    for name, version in versions.items():
        if name not in VERSIONS:
            raise unknown_name("library in versions", name, VERSIONS)
        _check_version(name, checks.text(version, f"versions: {name}"))
    return versions


def _check_version(name: str, version: str) -> None:
    modelled = VERSIONS[name]
    if modelled != version and not modelled.startswith(version + "."):
        raise UnsupportedError(
            f"versions: {name} {version} is not modelled; {modelled} is. Leave the key out."
        )


def _gpu(value: Any) -> str | None:
    if value is None or isinstance(value, int):
        size = None if value is None else checks.integer(value, "gpu", minimum=1, maximum=1 << 60)
        return None if size is None else str(size)
    name = checks.text(value, "gpu")
    return None if name.lower() == "none" else name


SPECIAL: dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "alpha": _alpha,
    "dropout": _dropout,
    "target_modules": _target_modules,
    "modules_to_save": _modules_to_save,
    "peft_config": _peft_config,
    "activation_checkpointing": _activation_checkpointing,
    "max_grad_norm": _max_grad_norm,
    "versions": _versions,
    "gpu": _gpu,
}
