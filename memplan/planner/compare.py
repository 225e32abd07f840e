"""Methods x ranks x quantisation of one run, side by side, smallest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from memplan.combinations import METHOD_KEYS
from memplan.coverage import modelled_value
from memplan.errors import ConfigError, UnknownNameError
from memplan.estimate import estimate
from memplan.method_table import BY_NAME
from memplan.planner.smallest import smallest_gpu
from memplan.results import Estimate
from memplan.values import checked_value
from memplan.workload import DEFAULTS

DEFAULT_METHODS = ("full", "lora", "prompt_tuning")
AXES = ("method", "rank", "quantization", "micro_batch_size", "seq_len")


@dataclass(frozen=True, slots=True)
class Case:
    """One combination: the keys that tell the rows of a comparison apart.

    Attributes:
        method: What trains.
        rank: Rank of the adapter, none where the method has none.
        quantization: How the base model is stored.
        micro_batch_size: Sequences per forward.
        seq_len: Length of each sequence. [tokens]
    """

    method: str
    rank: int | None
    quantization: str
    micro_batch_size: int
    seq_len: int


@dataclass(frozen=True, slots=True)
class Row:
    """A combination that runs, and what it needs.

    Attributes:
        case: Which one.
        estimate: What it needs.
        smallest_gpu: The smallest card of the catalogue that it fits, if there is one.
    """

    case: Case
    estimate: Estimate
    smallest_gpu: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A combination that the libraries, or memplan, refuse, and why."""

    case: Case
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared: rows by allocated peak, smallest first, and what was refused."""

    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]


def compare(
    *,
    methods: Sequence[str] | None = None,
    ranks: Sequence[int] | None = None,
    quantization: str | Sequence[str] | None = None,
    micro_batch_size: int | Sequence[int] | None = None,
    seq_len: int | Sequence[int] | None = None,
    **keys: Any,
) -> Comparison:
    """Estimates of every combination; a rank multiplies only the methods that have one.

    Args:
        methods: What trains; by default ``method`` if given, else full, lora and prompt_tuning.
        ranks: Ranks of the adapters; by default ``rank``.
        quantization: One scheme or several.
        micro_batch_size: One or several.
        seq_len: One or several. [tokens]
        keys: Every other key of a workload, for all rows.

    Raises:
        ConfigError: A value cannot be used by any row. What only some combinations refuse is a
            refused row.
    """
    axes = {
        "method": _axis("method", methods, keys.pop("method", None) or DEFAULT_METHODS),
        "rank": _axis("rank", ranks, keys.pop("rank", None)),
        "quantization": _axis("quantization", quantization),
        "micro_batch_size": _axis("micro_batch_size", micro_batch_size),
        "seq_len": _axis("seq_len", seq_len),
    }
    _check_taken(keys, axes["method"])
    return _collect([(case, _try(case, keys)) for case in _cases(axes)])


def _axis(key: str, given: Any, default: Any = None) -> tuple[Any, ...]:
    """The checked values of one axis, each once."""
    values = next((v for v in (given, default) if v is not None), DEFAULTS[key])
    if isinstance(values, str) or not isinstance(values, Sequence):
        values = (values,)
    if not values:
        raise ConfigError(f"{key}: nothing to compare; the list is empty.")
    return tuple(dict.fromkeys(modelled_value(key, checked_value(key, v)) for v in values))


def _check_taken(keys: Mapping[str, Any], methods: Sequence[str]) -> None:
    """A key that none of the methods takes is a mistake; one that some take is theirs."""
    for key in keys:
        takers = METHOD_KEYS.get(key, methods)
        if not set(takers) & set(methods):
            modelled = (name for name in takers if BY_NAME[name].modelled)
            raise ConfigError(
                f"{key}: none of the methods compared takes it; {' and '.join(modelled)} do."
            )


def _cases(axes: Mapping[str, tuple[Any, ...]]) -> Iterator[Case]:
    for method in axes["method"]:
        ranks = axes["rank"] if method in METHOD_KEYS["rank"] else (None,)
        rest = (axes[key] for key in AXES[2:])
        for values in product((method,), ranks, *rest):
            yield Case(*values)


def _try(case: Case, keys: Mapping[str, Any]) -> Estimate | ConfigError:
    """The estimate of one combination, or why there is none."""
    own = {key: value for key, value in keys.items() if _takes(case.method, key)}
    own |= {key: getattr(case, key) for key in AXES if getattr(case, key) is not None}
    try:
        return estimate(**own)
    except UnknownNameError:
        raise
    except ConfigError as error:
        return error


def _takes(method: str, key: str) -> bool:
    return method in METHOD_KEYS.get(key, (method,))


def _collect(results: Sequence[tuple[Case, Estimate | ConfigError]]) -> Comparison:
    """Rows in order; an error that every row has is an error of the call."""
    rows = [
        Row(case, result, smallest_gpu(result))
        for case, result in results
        if isinstance(result, Estimate)
    ]
    errors = [result for _, result in results if isinstance(result, ConfigError)]
    if not rows and len({str(error) for error in errors}) == 1:
        raise errors[0]
    refused = [Refusal(c, str(result)) for c, result in results if isinstance(result, ConfigError)]
    rows.sort(key=lambda row: row.estimate.peak_allocated_bytes)
    return Comparison(tuple(rows), tuple(refused))
