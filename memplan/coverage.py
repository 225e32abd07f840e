"""What of a workload the byte engine models; the rest is for the virtual engine.

A question of its own, so that a workload says what is to be run and not who can run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memplan.errors import UnsupportedError
from memplan.peft_options import PEFT_CONFIG, PEFT_SELECTORS
from memplan.vocabulary import CHOICES
from memplan.workload import Workload


def require_modelled(workload: Workload) -> None:
    """Refuse a workload that the byte engine does not model.

    Raises:
        UnsupportedError: It says what is not modelled, and what is.
    """
    why = why_not_modelled(workload)
    if why is not None:
        raise UnsupportedError(why)


def why_not_modelled(workload: Workload) -> str | None:
    """What the byte engine does not model of a workload; none if it models it all.

    The model's config is another question: ``models.parse`` refuses what it does not mirror.
    """
    return next(_reasons(workload), None)


def modelled_value(key: str, value: Any) -> Any:
    """The value of one key, if the byte engine models it.

    Raises:
        UnsupportedError: It does not; the error says what it models.
    """
    for why in _reasons_of(key, value):
        raise UnsupportedError(why)
    return value


def _reasons_of(key: str, value: Any) -> Iterator[str]:
    if key in CHOICES and value not in CHOICES[key].modelled:
        listed = ", ".join(CHOICES[key].modelled)
        yield f"{key}: {value!r} is not modelled yet. Modelled: {listed}."


def _reasons(workload: Workload) -> Iterator[str]:
    for key in CHOICES:
        yield from _reasons_of(key, getattr(workload, key))
    allowed = PEFT_CONFIG.get(workload.method, {})
    for key, value in workload.peft_config.items():
        if key not in PEFT_SELECTORS and not _is_one_of(value, allowed[key]):
            listed = ", ".join(repr(v) for v in allowed[key])
            yield f"peft_config: {key}: {value!r} is not modelled; {listed} is."


def _is_one_of(value: Any, allowed: tuple[object, ...]) -> bool:
    """Whether it is one of them and not merely equal: 0 is no False."""
    return any(value is v or (isinstance(v, str) and value == v) for v in allowed)
