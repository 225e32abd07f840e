"""c10's caching allocator of one device, one stream and no CUDA graphs.

Source:
    pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``DeviceCachingAllocator``; each
    method names the one it mirrors.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.allocator.blocks import Block, Pool
from memplan.allocator.config import AllocatorConfig
from memplan.allocator.memory import OutOfMemory
from memplan.allocator.rounding import (
    GRANULE,
    GRANULES_PER_MIB,
    ROUND_LARGE,
    SMALL_SIZE,
    block_size,
    granules,
    segment_size,
)

UNLIMITED = 1 << 62
"""More granules than any card has. [granules]"""
DEFAULT_CONFIG = AllocatorConfig()


class Allocator:
    """What torch's counters say after any sequence of allocations and frees.

    Addresses are handed out upwards and never again, with a gap after each segment. A real device
    may hand out any; they matter only where several free blocks of one size wait (the first is
    taken).

    Attributes:
        allocated: Blocks handed out. [granules]
        reserved: Segments taken from CUDA. [granules]
        requested: What was asked for. [bytes]
        peak_allocated: Since ``reset_peaks``, like the next two. [granules]
        peak_reserved: [granules]
        peak_requested: [bytes]
        peak_event: Number of the event that first reached ``peak_allocated`` (``replay`` only).
        handles: Block of each event of a replayed stream that has allocated one.
        segments: First block of each segment, by address.
    """

    def __init__(
        self,
        config: AllocatorConfig = DEFAULT_CONFIG,
        *,
        capacity_bytes: int | None = None,
        context_bytes: int = 0,
    ) -> None:
        """An empty allocator.

        Args:
            config: Options of ``PYTORCH_CUDA_ALLOC_CONF``.
            capacity_bytes: ``total_memory`` of the card; ``None``: as much as is asked for. [bytes]
            context_bytes: Of these, what CUDA's context, loaded kernels and other processes hold.
                [bytes]
        """
        self.config = config
        self.capacity_bytes = capacity_bytes
        self.context_bytes = context_bytes
        self.allocated = self.reserved = self.requested = 0
        self.peak_allocated = self.peak_reserved = self.peak_requested = 0
        self.peak_event = -1
        self.blocks: dict[int, Block] = {}
        self.segments: dict[int, Block] = {}
        self.handles: list[Block | None] = []
        self.edge = Block()
        self.edge.free = False
        self.small = Pool(is_small=True, slack=0, blocks=self.blocks)
        self.large = Pool(is_small=False, slack=self._large_slack(), blocks=self.blocks)
        self._top = 0
        self._on_device = 0
        self._room = UNLIMITED
        if capacity_bytes is not None:
            self._room = granules(max(capacity_bytes - context_bytes, 0))
        allowed = _allowed_bytes(config, capacity_bytes)
        self._allowed = UNLIMITED if allowed is None else granules(allowed)
        self._collects = config.garbage_collection_threshold > 0 and allowed is not None
        self._garbage_threshold = int(config.garbage_collection_threshold * (allowed or 0))
        self._large_segment = config.large_segment_size_mb * GRANULES_PER_MIB
        self._max_split = UNLIMITED
        if config.max_split_size_mb is not None:
            self._max_split = config.max_split_size_mb * GRANULES_PER_MIB
        self._max_rounding = config.max_non_split_rounding_mb * GRANULES_PER_MIB

    @property
    def is_plain(self) -> bool:
        """Whether no option changes how blocks are found, split or rounded."""
        return not (
            self.config.max_split_size_mb or self.config.roundup_power2_divisions or self._collects
        )

    def malloc(self, nbytes: int) -> Block:
        """Hand out a block for a request of at least one byte (``malloc``).

        Raises:
            OutOfMemory: There is no room, even after cached segments went back.
        """
        size = block_size(nbytes, self.config.roundup_power2_divisions)
        pool = self.small if size <= SMALL_SIZE else self.large
        block = self._take(pool, size)
        if block is None:
            block = self.grow(pool, size, nbytes)
        block.free = False
        if self._splits(pool, block.size, size):
            pool.insert(self._cut(block, size))
        block.requested = nbytes
        self._count(block)
        return block

    def free(self, block: Block) -> None:
        """Take a block back and merge it with free neighbours (``free``, ``free_block``)."""
        if block.free:
            raise ValueError("block is free already")
        self.allocated -= block.size
        self.requested -= block.requested
        pool = self.small if block.size <= SMALL_SIZE else self.large
        block.free = True
        pool.insert(self._merge(block, pool))

    def empty_cache(self) -> None:
        """Give back every segment that is not in use (``emptyCache``)."""
        self._release_cached()

    def reset_peaks(self) -> None:
        """``torch.cuda.reset_peak_memory_stats``: the peaks become what stands now."""
        self.peak_requested = self.requested
        self.peak_allocated = self.allocated
        self.peak_reserved = self.reserved
        self.peak_event = -1

    def state(self) -> tuple[int, ...]:
        """All that decides what later events do; equal states go on alike.

        For each segment its address, then its blocks' sizes, those of free ones negative; the ages
        of free blocks too where garbage collection reads them. [granules]
        """
        out: list[int] = []
        edge = self.edge
        for address, head in self.segments.items():
            out.append(address)
            block = head
            while block is not edge:
                out.append(-block.size if block.free else block.size)
                block = block.next
        if self._collects:
            out.extend(self.large.searches - block.born for block in self.large)
        return tuple(out)

    def walk(self) -> Iterator[tuple[int, int, bool]]:
        """(address, size, free) of every block, segment by segment. [bytes]"""
        for head in self.segments.values():
            block = head
            while block is not self.edge:
                yield block.address * GRANULE, block.size * GRANULE, block.free
                block = block.next

    def grow(self, pool: Pool, size: int, nbytes: int) -> Block:
        """A new segment, whole, for a block that no cached one can hold (``malloc``).

        Args:
            pool: The pool that the block belongs to.
            size: The block. [granules]
            nbytes: The request, for the error. [bytes]

        Raises:
            OutOfMemory: There is no room, even after cached segments went back.
        """
        wanted = segment_size(size, self._large_segment)
        if self._collects:
            self._collect_garbage()
        block = self._new_segment(pool, size, wanted)
        if block is None and self._release_available(pool, size):
            block = self._new_segment(pool, size, wanted)
        if block is None:
            self._release_cached()
            block = self._new_segment(pool, size, wanted)
        if block is None:
            raise self._out_of_memory(nbytes, wanted)
        return block

    def _large_slack(self) -> int:
        """What may stay unsplit in the large pool (``should_split``). [granules]"""
        return SMALL_SIZE

    def _splits(self, pool: Pool, have: int, want: int) -> bool:
        """Whether what is left of a block becomes one of its own (``should_split``)."""
        return have - want > pool.slack and (pool.is_small or want < self._max_split)

    def _take(self, pool: Pool, size: int) -> Block | None:
        """A cached block, out of its pool, if one fits (``get_free_block``)."""
        if self._collects:
            pool.searches += 1
        block = self._best_fit(pool, size)
        if block is None or size < self._max_split <= block.size:
            return None
        if size >= self._max_split and block.size >= size + self._max_rounding:
            return None
        pool.remove(block)
        return block

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        return pool.find(size)

    def _cut(self, block: Block, size: int) -> Block:
        """Shorten ``block`` to ``size``; what is left of it (``alloc_found_block``)."""
        rest = Block()
        rest.address = block.address + size
        rest.size = block.size - size
        rest.free = True
        rest.prev = block
        rest.next = block.next
        rest.next.prev = block.next = rest
        block.size = size
        self.blocks[rest.address] = rest
        return rest

    def _count(self, block: Block) -> None:
        self.allocated += block.size
        self.requested += block.requested
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_requested = max(self.peak_requested, self.requested)

    def _merge(self, block: Block, pool: Pool) -> Block:
        """A free block in no pool, with its free neighbours out of it (``try_merge_blocks``)."""
        if self._merges(block.prev, block):
            pool.remove(block.prev)
            block = self._join(block.prev, block)
        if self._merges(block.next, block):
            pool.remove(block.next)
            self._join(block, block.next)
        return block

    def _merges(self, neighbour: Block, block: Block) -> bool:
        return neighbour.free

    def _join(self, first: Block, second: Block) -> Block:
        """Make two neighbours one, the first."""
        first.size += second.size
        first.next = second.next
        second.next.prev = first
        return first

    def _new_segment(self, pool: Pool, size: int, wanted: int) -> Block | None:
        """``cudaMalloc`` of a segment, if it is allowed and fits (``alloc_block``).

        ``cudaMalloc`` itself takes whole pages of 2 MiB. Inferred: NVIDIA documents no granularity;
        the virtual GPU takes it so, and segments are whole pages anyhow unless
        ``large_segment_size_mb`` is odd.
        """
        on_device = -(-wanted // ROUND_LARGE) * ROUND_LARGE
        if not self._may_take(wanted) or self._on_device + on_device > self._room:
            return None
        self._on_device += on_device
        self._reserve(wanted)
        block = self._span(wanted)
        self.segments[block.address] = block
        return block

    def _span(self, size: int) -> Block:
        """A block over fresh addresses, with a gap behind it."""
        block = Block()
        block.address = self._top
        block.size = size
        block.prev = block.next = self.edge
        block.free = False
        self.blocks[self._top] = block
        self._top += size + ROUND_LARGE
        return block

    def _may_take(self, size: int) -> bool:
        return self.reserved + size <= self._allowed

    def _reserve(self, size: int) -> None:
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _release(self, block: Block, pool: Pool) -> None:
        """``cudaFree`` of a segment that is one free block (``release_block``)."""
        pool.remove(block)
        del self.segments[block.address], self.blocks[block.address]
        self.reserved -= block.size
        self._on_device -= -(-block.size // ROUND_LARGE) * ROUND_LARGE

    def _is_whole(self, block: Block) -> bool:
        return block.prev is self.edge and block.next is self.edge

    def _release_cached(self) -> None:
        """Give back every segment that is one free block (``release_cached_blocks``)."""
        for pool in (self.large, self.small):
            for block in list(pool):
                if self._is_whole(block):
                    self._release(block, pool)

    def _release_available(self, pool: Pool, size: int) -> bool:
        """Give back oversize blocks, enough for ``size`` (``release_available_cached_blocks``).

        Returns:
            Whether it was enough; never without ``max_split_size_mb``.
        """
        if self._max_split == UNLIMITED:
            return False
        size = max(size, self._max_split)
        block = pool.find(size)
        if block is not None:
            self._release(block, pool)
            return True
        released = 0
        for block in reversed([b for b in pool if b.size >= self._max_split]):
            if released < size:
                released += block.size
                self._release(block, pool)
        return released >= size

    def _collect_garbage(self) -> None:
        """Give back the older of the cached segments (``garbage_collect_cached_blocks``)."""
        target = self.reserved * GRANULE - self._garbage_threshold
        ages = {b.address: self.large.searches - b.born for b in self.large if self._is_whole(b)}
        reclaimed = 0
        while ages and reclaimed < target:
            mean = sum(ages.values()) / len(ages)
            old = [address for address, age in ages.items() if age >= mean]
            for address in old:
                del ages[address]
                reclaimed += self.blocks[address].size * GRANULE
                self._release(self.blocks[address], self.large)

    def _out_of_memory(self, nbytes: int, wanted: int) -> OutOfMemory:
        free = None
        if self.capacity_bytes is not None:
            room = self.capacity_bytes - self.context_bytes
            free = max(room - self._on_device * GRANULE, 0)
        return OutOfMemory(
            requested_bytes=nbytes,
            tried_bytes=wanted * GRANULE,
            allocated_bytes=self.allocated * GRANULE,
            reserved_bytes=self.reserved * GRANULE,
            free_bytes=free,
            capacity_bytes=self.capacity_bytes,
        )


def _allowed_bytes(config: AllocatorConfig, capacity_bytes: int | None) -> int | None:
    """What a fraction below 1 allows the process to take (``setMemoryFraction``). [bytes]"""
    if config.per_process_memory_fraction >= 1 or capacity_bytes is None:
        return None
    return int(config.per_process_memory_fraction * capacity_bytes)
