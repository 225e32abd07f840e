"""What to change in a run that needs too much memory: each change is estimated, none is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memplan.errors import MemplanError
from memplan.estimate import estimate
from memplan.results import Estimate
from memplan.workload import Workload

IN_8_BITS = ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit")
SMALLER_OPTIMIZERS = {  # of each optimizer, what updates alike and keeps less on the device
    "adamw_fused": IN_8_BITS,
    "adamw_foreach": ("adamw_fused", *IN_8_BITS),
    "adamw_loop": ("adamw_fused", *IN_8_BITS),
    "adamw_8bit": ("paged_adamw_8bit",),
    "paged_adamw_32bit": ("paged_adamw_8bit",),
    "ademamix": ("ademamix_8bit", "paged_ademamix_8bit", "paged_ademamix_32bit"),
    "ademamix_8bit": ("paged_ademamix_8bit",),
    "paged_ademamix_32bit": ("paged_ademamix_8bit",),
    "lion": ("lion_8bit", "paged_lion_8bit", "paged_lion_32bit"),
    "lion_8bit": ("paged_lion_8bit",),
    "paged_lion_32bit": ("paged_lion_8bit",),
    "rmsprop": ("rmsprop_bnb_8bit",),
    "rmsprop_bnb": ("rmsprop_bnb_8bit",),
    "sgd_momentum": ("sgd",),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a workload that lowers its peak.

    Attributes:
        keys: The workload's keys with their new values.
        saved_bytes: By how much the allocated peak is lower. [bytes]
        estimate: Of the changed workload.
    """

    keys: Mapping[str, Any]
    saved_bytes: int
    estimate: Estimate


def helpful_changes(workload: Workload, estimated: Estimate) -> tuple[Change, ...]:
    """The changes that lower the allocated peak, those that save most first.

    Args:
        workload: As it is.
        estimated: Its estimate.
    """
    found = []
    for keys in candidates(workload):
        try:
            changed = estimate(replace(workload, **keys))
        except MemplanError:
            continue  # what does not go together, or is not modelled, is no advice
        saved = estimated.peak_allocated_bytes - changed.peak_allocated_bytes
        if saved > 0:
            found.append(Change(keys, saved, changed))
    return tuple(sorted(found, key=lambda c: -c.saved_bytes))


def candidates(workload: Workload) -> Iterator[dict[str, Any]]:
    """Changes that leave what is learned as it is, or nearly so."""
    if not workload.activation_checkpointing:
        yield {"activation_checkpointing": True}
    for size in sorted({workload.micro_batch_size // 2, 1} - {0, workload.micro_batch_size}):
        if workload.micro_batch_size % size == 0:
            factor = workload.micro_batch_size // size
            steps = workload.gradient_accumulation_steps * factor
            yield {"micro_batch_size": size, "gradient_accumulation_steps": steps}
    for optimizer in SMALLER_OPTIMIZERS.get(workload.optimizer, ()):
        yield {"optimizer": optimizer}
    if workload.method != "full" and not workload.is_quantized:
        yield {"quantization": "nf4-dq"}
