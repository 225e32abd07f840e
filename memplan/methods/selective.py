"""Selective fine-tuning: some of the model's own parameters train, and nothing is added.

How deep the backward goes needs no rule: below the lowest parameter that trains no operator has an
input that wants a gradient, so nothing is kept there.

Source: BitFit, arXiv:2106.10199; the last layers, arXiv:1911.03090; else what a loop over
``named_parameters()`` that sets ``requires_grad`` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from memplan.dtypes import BF16, FP16, FP32, FP64
from memplan.engine import Tensor
from memplan.engine.nn import Module
from memplan.errors import ConfigError, unknown_name
from memplan.methods.full import freeze_all
from memplan.workload import Workload

FLOATS = (BF16, FP16, FP32, FP64)
TRAIN_WHAT_IS_NOT_QUANTISED = (
    "A packed weight takes no gradient: leave quantization none, or use a method that trains what "
    "is not quantised, or an adapter such as lora."
)


def train_chosen(model: Module, workload: Workload) -> Module:
    """``method: full``: every parameter as it was loaded, or those that ``trainable`` names."""
    if not workload.trainable:
        return model
    freeze_all(model)
    for pattern in workload.trainable:
        search = re.compile(pattern).search
        chosen = train_where(model, lambda name, search=search: search(name) is not None)  # type: ignore[misc]
        if not chosen:
            names = [name for name, _, _, _ in model.named_parameters()]
            raise ConfigError(
                f"trainable: {pattern!r} matches no parameter. "
                f"{unknown_name('parameter', pattern, names)}"
            )
    return model


def bitfit(model: Module, workload: Workload) -> Module:
    """Every bias trains.

    Raises:
        ConfigError: The model has none.
    """
    freeze_all(model)
    if not train_where(model, lambda name: name.endswith("bias")):
        raise ConfigError(
            "method bitfit: the model has no bias at all, so nothing would train. Use ln_tuning, "
            "which trains the norms, beft, which adds biases, or an adapter such as lora."
        )
    return model


def last_layers(model: Any, workload: Workload) -> Any:
    """The last decoder layers train, with what comes after them: the final norm and the head.

    A head that is the input embeddings' own weight stays frozen: training it would send the
    backward through every frozen layer, down to the embeddings.
    """
    layers = model.model.layers
    count = workload.num_trainable_layers
    if count > len(layers):
        raise ConfigError(
            f"num_trainable_layers: {count} is above the model's {len(layers)} layers; use the "
            "method full to train all of it."
        )
    freeze_all(model)
    first = len(layers) - count
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    after = ("model.norm.",) if tied else ("model.norm.", "lm_head.")
    starts = (*(f"model.layers.{i}." for i in range(first, len(layers))), *after)
    train_where(model, lambda name: name.startswith(starts))
    return model


def embeddings_only(model: Any, workload: Workload) -> Any:
    """The token embeddings train; where the head is tied to them, it trains with them."""
    freeze_all(model)
    train(model.model.embed_tokens.weight, "model.embed_tokens.weight")
    return model


def train_where(model: Module, is_chosen: Callable[[str], bool]) -> int:
    """Let the parameters of some qualified names train; how many they are."""
    chosen = [(name, p) for name, _, _, p in model.named_parameters() if is_chosen(name)]
    for name, p in chosen:
        train(p, name)
    return len(chosen)


def train(p: Tensor, name: str) -> None:
    """``p.requires_grad = True``, which torch takes for floats only.

    Source: pytorch/pytorch v2.14.1 torch/csrc/autograd/python_variable.cpp
    ``THPVariable_set_requires_grad``.
    """
    if p.dtype not in FLOATS:
        raise ConfigError(f"{name} cannot train. {TRAIN_WHAT_IS_NOT_QUANTISED}")
    p.requires_grad = True
