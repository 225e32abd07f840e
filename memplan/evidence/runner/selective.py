"""Methods that train some of the model's own parameters: what a user's loop over them does.

Written for any model that transformers loads, and apart from the byte engine's rule.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
NEAR = 5


def train_chosen(w: Json, model: Any) -> Any:
    """The model with everything frozen but what the method chooses.

    Raises:
        ValueError: It chooses nothing.
    """
    chosen = list(CHOOSERS[w["method"]](w, model))
    if not chosen:
        raise ValueError(f"method {w['method']}: the model has no such parameter")
    model.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad = True
    return model


def named(w: Json, model: Any) -> Iterator[Any]:
    """Those in whose name one of the patterns is found."""
    parameters = dict(model.named_parameters())
    for pattern in w["trainable"]:
        found = [name for name in parameters if re.search(pattern, name)]
        if not found:
            near = difflib.get_close_matches(pattern, parameters, NEAR, 0.0)
            raise ValueError(f"trainable: no parameter has {pattern!r} in its name; near: {near}")
        yield from (parameters[name] for name in found)


def biases(w: Json, model: Any) -> Iterator[Any]:
    """BitFit."""
    return (p for name, p in model.named_parameters() if name.endswith("bias"))


def embeddings(w: Json, model: Any) -> Iterator[Any]:
    """The token embeddings, and a head that shares their weight."""
    return iter(model.get_input_embeddings().parameters())


def last_layers(w: Json, model: Any) -> Iterator[Any]:
    """The last decoder layers, the final norm, and a head with a weight of its own."""
    import torch

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    (layers,) = [m for m in decoder.children() if isinstance(m, torch.nn.ModuleList)]
    count = w["num_trainable_layers"]
    if count > len(layers):
        raise ValueError(f"num_trainable_layers: {count}, and the model has {len(layers)}")
    for layer in layers[len(layers) - count :]:
        yield from layer.parameters()
    for name, child in decoder.named_children():
        if name in FINAL_NORMS:
            yield from child.parameters()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        yield from head.parameters()


CHOOSERS: dict[str, Callable[[Json, Any], Iterator[Any]]] = {
    "full": named,
    "bitfit": biases,
    "embeddings_only": embeddings,
    "last_layers": last_layers,
}
