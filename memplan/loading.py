"""``from_pretrained``: the order in which a checkpoint's tensors reach the device.

One warm-up block of the sum of all is made and freed; then parameters in the natural order of their
names; then buffers.

Source: huggingface/transformers v5.18.0 core_model_loading.py, modeling_utils.py
``caching_allocator_warmup``.
"""

from __future__ import annotations

import re

from memplan.engine import S, Storage
from memplan.engine.nn import Module, building_layer
from memplan.engine.tensor import numel


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which ``layers.10`` comes after ``layers.9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"\.", name)]


def load(model: Module) -> None:
    """Give every parameter of a model on the meta device its storage."""
    entries = [
        (name, p, numel(p.shape) * p.dtype.itemsize) for name, _, _, p in model.named_parameters()
    ]
    warmup = Storage(sum(n * p.copies for _, p, n in entries) // 2 * 2)
    del warmup
    for _, p, nbytes in sorted(entries, key=lambda e: natural(e[0])):
        with building_layer(p.layer, p.copies):
            p.storage = Storage(nbytes)
    model.model.rotary_emb.materialize()  # type: ignore[attr-defined]


def build_on_meta() -> None:
    """Parameters that are made from here on have no storage."""
    S.meta = True
