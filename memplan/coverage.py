"""What of a workload the byte engine models; the rest is for the virtual engine.

A question of its own, so that a workload says what is to be run and not who can run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memplan.errors import UnsupportedError
from memplan.lora_options import LORA_METHODS
from memplan.method_table import ADDITIVE, BY_NAME
from memplan.option_values import Values
from memplan.peft_options import PEFT_CONFIG, PEFT_SELECTORS
from memplan.quantized_bases import reasons_of_quantization
from memplan.vocabulary import CHOICES
from memplan.workload import Workload

SAVED = ("none", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8")
"""Quantisations whose checkpoints have been held against a recorded run."""


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


def solves_equations(peft_config: Mapping[str, Any]) -> bool:
    """Whether a ``PsoftConfig`` makes its rotation by ``torch.linalg.solve``.

    Source: huggingface/peft v0.21.2 tuners/psoft/layer.py ``OrthLayer.get_matrix``.
    """
    orth, by_series = peft_config.get("psoft_orth", True), peft_config.get("use_cayley_neumann")
    return bool(orth and not by_series)


def _reasons(workload: Workload) -> Iterator[str]:
    for key in CHOICES:
        yield from _reasons_of(key, getattr(workload, key))
    if workload.adapters > 1 and workload.method not in LORA_METHODS:
        yield f"adapters: several adapters of {workload.method} are not modelled; of LoRA they are."
    if workload.adapters > 1 and workload.peft_config.get("trainable_token_indices") is not None:
        yield "adapters: several of them with trainable_token_indices are not modelled."
    yield from reasons_of_quantization(workload)
    if workload.loop == "trainer":
        yield from _reasons_of_trainer(workload)
    if workload.peft_config.get("use_qalora") and workload.quantization.startswith("gptq"):
        yield "peft_config: use_qalora is not modelled over GPTQ's layers."
    if workload.method == "psoft" and solves_equations(workload.peft_config):
        yield (
            "method psoft with a system of equations that is solved in each forward is not "
            "modelled; with use_cayley_neumann: true in peft_config it is."
        )
    allowed = PEFT_CONFIG.get(workload.method, {})
    for key, value in workload.peft_config.items():
        if key not in PEFT_SELECTORS and not _is_one_of(value, allowed[key]):
            listed = ", ".join(repr(v) for v in allowed[key])
            yield f"peft_config: {key}: {value!r} is not modelled; {listed} is."


def _reasons_of_trainer(workload: Workload) -> Iterator[str]:
    """Against transformers' Trainer no run of these has been held."""
    if workload.save and workload.quantization not in SAVED:
        yield f"save: with quantization {workload.quantization} is not modelled."
    if not BY_NAME[workload.method].of_peft and BY_NAME[workload.method].family == ADDITIVE:
        yield f"method: {workload.method} in loop trainer is not modelled; in loop plain it is."


def _is_one_of(value: Any, allowed: tuple[object, ...]) -> bool:
    """Whether it is one of them, or of a range, and not merely equal: 0 is no False."""
    ranges = (v for v in allowed if isinstance(v, Values))
    named = any(value is v or (isinstance(v, str) and value == v) for v in allowed)
    return named or any(v.takes(value) for v in ranges)
