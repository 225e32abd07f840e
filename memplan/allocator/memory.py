"""What is known when the card is full."""

from __future__ import annotations

from memplan.errors import MemplanError


class OutOfMemory(MemplanError):
    """``torch.OutOfMemoryError``, with the figures of its message.

    Attributes:
        requested_bytes: What was asked for. [bytes]
        tried_bytes: The segment that CUDA had no room for ("Tried to allocate"). [bytes]
        allocated_bytes: Handed out then ("is allocated by PyTorch"). [bytes]
        reserved_bytes: Taken from CUDA then, after the release of what could go. [bytes]
        free_bytes: Free on the card then; ``None`` without a capacity. [bytes]
        capacity_bytes: ``total_memory`` of the card. [bytes]
    """

    exit_code = 1

    def __init__(
        self,
        *,
        requested_bytes: int,
        tried_bytes: int,
        allocated_bytes: int,
        reserved_bytes: int,
        free_bytes: int | None,
        capacity_bytes: int | None,
    ) -> None:
        self.requested_bytes = requested_bytes
        self.tried_bytes = tried_bytes
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes
        self.free_bytes = free_bytes
        self.capacity_bytes = capacity_bytes
        super().__init__(
            f"out of memory: tried to take {tried_bytes} bytes of a card of {capacity_bytes} bytes "
            f"with {free_bytes} free, {allocated_bytes} allocated and {reserved_bytes} reserved."
        )
