"""c10's CUDACachingAllocator, simulated: allocated and reserved bytes of a stream of events.

Both depend on the order of events (a cached block with too little to spare is handed out whole, a
segment goes back only when all of it is free), so the stream is replayed through the allocator's
own rules; rounding the live bytes alone was the alternative, and is off by up to 1.7 % of the
allocated and 34 % of the reserved bytes. The rules stand in ``caching`` and ``expandable`` as torch
has them, method by method; ``replay`` holds the plain ones once more in one loop, because a call
an event would double the time of an estimate.
"""

from memplan.allocator.caching import Allocator
from memplan.allocator.config import AllocatorConfig, parse_allocator_config
from memplan.allocator.memory import OutOfMemory
from memplan.allocator.replay import Phase, Replay, replay, run_events
from memplan.engine.tape import EMPTY_CACHE

__all__ = [
    "Allocator",
    "build_allocator",
    "AllocatorConfig",
    "parse_allocator_config",
    "OutOfMemory",
    "EMPTY_CACHE",
    "Phase",
    "Replay",
    "replay",
    "run_events",
]

DEFAULT_CONFIG = AllocatorConfig()


def build_allocator(
    config: AllocatorConfig = DEFAULT_CONFIG,
    *,
    capacity_bytes: int | None = None,
    context_bytes: int = 0,
) -> Allocator:
    """An empty allocator that follows ``config``.

    Args:
        config: Options of ``PYTORCH_CUDA_ALLOC_CONF``.
        capacity_bytes: ``total_memory`` of the card; ``None``: as much as is asked for. [bytes]
        context_bytes: Of these, what others than the allocator hold. [bytes]
    """
    kind = Allocator
    if config.expandable_segments:
        from memplan.allocator.expandable import ExpandableAllocator

        kind = ExpandableAllocator
    return kind(config, capacity_bytes=capacity_bytes, context_bytes=context_bytes)
