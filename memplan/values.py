"""Each key of a workload on its own: which values it takes, and their plain form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

from memplan import checks
from memplan.errors import ConfigError, UnsupportedError, unknown_name
from memplan.files import checked_mapping
from memplan.vocabulary import CHOICES, OLD_VERSIONS, VERSIONS

MAX_TOKENS = 1 << 28  # a hundred times what any card holds; kernels are cut into pieces, one by one
MAX_COUNT = 1 << 20
NO_SUCH_RUN = "no run is that large"

COUNTS = {  # upper bounds: hardly a real run is above them
    "rank": MAX_COUNT,
    "adapters": 1 << 10,
    "num_virtual_tokens": MAX_COUNT,
    "num_trainable_layers": MAX_COUNT,
    "micro_batch_size": MAX_TOKENS,
    "seq_len": MAX_TOKENS,
    "gradient_accumulation_steps": 1 << 10,
    "steps": 1 << 12,
    "eval_batches": 1 << 12,
    "eval_micro_batch_size": MAX_TOKENS,
}
WHY = {  # bounds of what is simulated one by one where it does not repeat exactly
    "gradient_accumulation_steps": "peaks settle within a few micro batches; ask for fewer",
    "steps": "peaks settle within a few steps; ask for fewer",
    "eval_batches": "what is kept grows evenly with them; ask for fewer",
}
EVAL_KEYS = ("eval_batches", "eval_micro_batch_size", "eval_accumulation_steps")
MESH_KEYS = ("dp_size", "tp_size", "pp_size", "cp_size", "ep_size")
CHECKPOINTING: dict[str, bool | str] = {
    **{"false": False, "none": False, "true": True},
    "reentrant": "reentrant",
}
FLAGS = ("prepare_kbit", "keep_outputs", "use_cache", "save")


def checked_value(name: str, value: Any) -> Any:
    """The plain form of one key's value."""
    if name == "loop" and value is None:  # what runs the workload; ``combinations`` settles it
        return None
    if name in CHOICES:
        return CHOICES[name].resolve(checks.text("none" if value is None else value, name), name)
    if name in COUNTS:
        why = WHY.get(name, NO_SUCH_RUN)
        return checks.integer(value, name, minimum=1, maximum=COUNTS[name], why=why)
    if name in FLAGS:
        return checks.flag(value, name)
    if name == "dp_size":
        return checks.integer(value, name, minimum=1, maximum=MAX_COUNT, why=NO_SUCH_RUN)
    if name in MESH_KEYS:
        return _one(value, name)
    return SPECIAL[name](value)


def _one(value: Any, name: str) -> int:
    if checks.integer(value, name, minimum=1, maximum=MAX_COUNT) != 1:
        raise UnsupportedError(f"{name}: only 1 is modelled yet.")
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


def _trainable(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = re.split(r",(?![^{]*\})", value)  # the comma of a{1,2} parts nothing
    patterns = () if value is None else checks.names(value, "trainable")
    for pattern in patterns:
        _check_pattern(pattern, "trainable")
    return patterns


def _check_pattern(pattern: str, name: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{name}: {pattern!r} is no regular expression: {error}.") from None


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


def _optim_args(value: Any) -> dict[str, int]:
    """A mapping, or what ``TrainingArguments.optim_args`` takes: ``rank=64,scale=2``."""
    if isinstance(value, str):
        parts = (part.partition("=") for part in value.replace(" ", "").split(","))
        value = {key: int(v) if v.isdigit() else v for key, _, v in parts}
    given = {} if value is None else checked_mapping(value, "optim_args")
    return {
        key: checks.integer(v, f"optim_args: {key}", minimum=1, maximum=MAX_COUNT, why=NO_SUCH_RUN)
        for key, v in given.items()
    }


def _versions(value: Any) -> dict[str, str]:
    versions = {} if value is None else checked_mapping(value, "versions")
    for name, version in versions.items():
        if name not in VERSIONS:
            raise unknown_name("library in versions", name, VERSIONS)
        _check_version(name, checks.text(version, f"versions: {name}"))
    return versions


def _check_version(name: str, version: str) -> None:
    modelled, old = VERSIONS[name], OLD_VERSIONS.get(name, ())
    if version in old:
        return
    if modelled != version and not modelled.startswith(version + "."):
        raise UnsupportedError(
            f"versions: {name} {version} is not modelled; {', '.join((modelled, *old[-2:]))} is. "
            "Leave the key out for the newest."
        )


def _gpu(value: Any) -> str | None:
    if value is None or isinstance(value, int):
        size = None if value is None else checks.integer(value, "gpu", minimum=1, maximum=1 << 60)
        return None if size is None else str(size)
    name = checks.text(value, "gpu")
    return None if name.lower() == "none" else name


def _eval_accumulation_steps(value: Any) -> int:
    name = "eval_accumulation_steps"
    return 0 if value is None else checks.integer(value, name, minimum=0, maximum=MAX_COUNT)


SPECIAL: dict[str, Callable[[Any], Any]] = {
    "eval_accumulation_steps": _eval_accumulation_steps,
    "model": _model,
    "alpha": _alpha,
    "dropout": _dropout,
    "target_modules": _target_modules,
    "modules_to_save": _modules_to_save,
    "trainable": _trainable,
    "peft_config": _peft_config,
    "activation_checkpointing": _activation_checkpointing,
    "max_grad_norm": _max_grad_norm,
    "optim_args": _optim_args,
    "versions": _versions,
    "gpu": _gpu,
}
