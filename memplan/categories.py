"""Which category a block belongs to: one rule for simulated runs and for recorded ones.

It is what became of the block that decides: a forward's block that outlives the forward is an
activation, one that does not is a temporary; a backward's block that became a leaf's gradient is a
gradient. To go by the operator that asked was the alternative, but the same operator makes both.
"""

from __future__ import annotations

from typing import NamedTuple

WORKSPACE = "workspace"
BATCH = "batch"
BASE = "base"
BACKWARD = "backward"
BUCKETS = "buckets"
SHARDS = "shards"
OTHER = "other"


class Fate(NamedTuple):
    """What is known of a block once the phase that made it is over.

    Attributes:
        source: Who asked: a library's ``workspace``, the ``batch`` that goes to the device, what
            prepares the ``base`` model, a node's ``backward``, DDP for its ``buckets`` of
            gradients, FSDP for its ``shards`` and what it gathers of them, or ``other``.
        phase: The phase that made it.
        survives: Whether it lives at the end of that phase.
        is_gradient: Whether it became a leaf's gradient.
        is_used: Whether a node's backward ran between its birth and its end.
    """

    source: str
    phase: str
    survives: bool
    is_gradient: bool = False
    is_used: bool = False


KEPT = {
    "load": "weights",
    "adapter": "adapters",
    "optimizer_init": "optimizer_states",
    "forward": "activations",
    "optimizer_step": "optimizer_states",
    "zero_grad": "temporaries",
}
"""Category of what outlives the phase that made it."""


OF_PARALLEL = {BUCKETS: "gradients", SHARDS: "weights"}
"""Category of what keeps a model on several devices, outside of the backward."""


def category_of(fate: Fate) -> str:
    """One of ``results.CATEGORIES``, the allocator's slack apart.

    Example:
        >>> category_of(Fate("other", "forward", survives=True))
        'activations'
    """
    if fate.source == WORKSPACE:
        return "workspaces"
    if fate.source == BATCH:
        return "inputs"
    if fate.phase == "backward":
        return _of_backward(fate)
    if fate.source in OF_PARALLEL and fate.survives:
        return OF_PARALLEL[fate.source]
    if not fate.survives:
        return "temporaries"
    if fate.phase == "adapter" and fate.source == BASE:
        return "weights"
    return KEPT.get(fate.phase, "temporaries")


def _of_backward(fate: Fate) -> str:
    """A gradient; an activation that checkpointing made again; or a temporary."""
    if fate.is_gradient:
        return "gradients"
    if fate.source == BACKWARD:
        return "temporaries"
    return "activations" if fate.is_used else "temporaries"
