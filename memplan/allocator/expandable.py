"""The caching allocator under ``expandable_segments:True``: segments of address space that grow.

A segment reserves addresses for more than the whole card and maps memory behind them page by page:
2 MiB in the small pool, ``large_segment_size_mb`` in the large one.

Source:
    pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``ExpandableSegment``, and of
    ``DeviceCachingAllocator`` the methods named below.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from memplan.allocator.blocks import Block, Pool
from memplan.allocator.caching import Allocator
from memplan.allocator.rounding import GRANULE, SMALL_SEGMENT
from memplan.units import TIB

UNLIMITED_SPACE = 64 * TIB
"""Address space of a segment when the card's size is not known. [bytes]"""


class ExpandableAllocator(Allocator):
    """An ``Allocator`` whose segments grow and shrink by pages."""

    @property
    def is_plain(self) -> bool:
        """Never: blocks are found in another way."""
        return False

    def state(self) -> tuple[int, ...]:
        """As of ``Allocator``, and which blocks have memory behind them."""
        unmapped = (len(self.small.unmapped), *self.small.unmapped, *self.large.unmapped)
        return super().state() + unmapped

    def _large_slack(self) -> int:
        """Every rest is split off, in both pools (``should_split``)."""
        return 0

    def _splits(self, pool: Pool, have: int, want: int) -> bool:
        return have > want

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        """The best fit, where a block counts with what it could grow to (``get_free_block``)."""
        best = pool.find(size)
        if best is None:
            return None
        for block in self._after(pool, best):
            if self._could_be(block) >= self._could_be(best):
                break
            best = block
        return best

    @staticmethod
    def _after(pool: Pool, first: Block) -> Iterator[Block]:
        """The free blocks behind ``first`` by size and address."""
        for i in range(bisect_left(pool.sizes, first.size), len(pool.sizes)):
            for address in pool.buckets[pool.sizes[i]]:
                if pool.sizes[i] > first.size or address > first.address:
                    yield pool.blocks[address]

    def _could_be(self, block: Block) -> int:
        after = block.next
        if after is self.edge or after.mapped:
            return block.size
        return block.size + after.size

    def _cut(self, block: Block, size: int) -> Block:
        rest = super()._cut(block, size)
        rest.mapped = block.mapped
        return rest

    def _merges(self, neighbour: Block, block: Block) -> bool:
        return neighbour.free and neighbour.mapped == block.mapped

    def _new_segment(self, pool: Pool, size: int, wanted: int) -> Block | None:
        """Room for ``size`` at the lowest address, mapped (``try_allocate_expandable_block``)."""
        if not self._may_take(wanted):
            return None
        start = self._lowest_room(pool, size)
        block: Block | None = start
        if not start.mapped:
            block = self._map(pool, start, min(start.size, size))
        while block is not None and block.size < size:
            after = block.next
            block = self._map(pool, after, min(size - block.size, after.size))
        if block is not None:
            pool.remove(block)
        return block

    def _lowest_room(self, pool: Pool, size: int) -> Block:
        """Where free and unmapped pieces in a row are enough (``find_expandable_block``)."""
        for address in pool.unmapped:
            block = self.blocks[address]
            if block.prev.free:
                block = block.prev
            if self._row(block, size) >= size:
                return block
        space = UNLIMITED_SPACE if self.capacity_bytes is None else self.capacity_bytes
        pages = -(-(space + space // 8) // (self._page(pool) * GRANULE))
        block = self._span(pages * self._page(pool))
        block.mapped = False
        block.free = True
        self.segments[block.address] = block
        insort(pool.unmapped, block.address)
        return block

    def _row(self, block: Block, size: int) -> int:
        """Granules in a row from ``block`` that are not handed out, counted up to ``size``."""
        total = 0
        while total < size and block.free:
            total += block.size
            block = block.next
        return total

    def _page(self, pool: Pool) -> int:
        return SMALL_SEGMENT if pool.is_small else self._large_segment

    def _map(self, pool: Pool, block: Block, size: int) -> Block | None:
        """Map the first ``size`` of an unmapped piece; the free block then (``map_block``)."""
        page = self._page(pool)
        size = -(-size // page) * page
        if self._on_device + size > self._room:
            return None
        self._on_device += size
        self._forget_unmapped(pool, block)
        if size < block.size:
            insort(pool.unmapped, self._cut(block, size).address)
        block.mapped = True
        block = self._merge(block, pool)
        pool.insert(block)
        self._reserve(size)
        return block

    @staticmethod
    def _forget_unmapped(pool: Pool, block: Block) -> None:
        del pool.unmapped[bisect_left(pool.unmapped, block.address)]

    def _release_cached(self) -> None:
        """Unmap the whole pages of every free block (``release_blocks``)."""
        for pool in (self.large, self.small):
            for block in list(pool):
                self._unmap(pool, block)

    def _unmap(self, pool: Pool, block: Block) -> None:
        """Unmap the pages that lie in a free block (``unmap_block``)."""
        page = self._page(pool)
        base = self._base(block)
        begin = base - (base - block.address) // page * page
        end = base + (block.address + block.size - base) // page * page
        if begin >= end:
            return
        pool.remove(block)
        if begin > block.address:
            middle = self._cut(block, begin - block.address)
            pool.insert(block)
            block = middle
        if end < block.address + block.size:
            pool.insert(self._cut(block, end - block.address))
        self.reserved -= block.size
        self._on_device -= block.size
        block.mapped = False
        self._file_unmapped(pool, block)

    def _file_unmapped(self, pool: Pool, block: Block) -> None:
        """Merge an unmapped piece with its like; a segment that is all unmapped goes."""
        for neighbour in (block.prev, block.next):
            if self._merges(neighbour, block):
                self._forget_unmapped(pool, neighbour)
                first, second = sorted((neighbour, block), key=lambda piece: piece.address)
                block = self._join(first, second)
        if self._is_whole(block):
            del self.segments[block.address]
        else:
            insort(pool.unmapped, block.address)

    def _base(self, block: Block) -> int:
        """Address at which the segment of ``block`` starts. [granules]"""
        while block.prev is not self.edge:
            block = block.prev
        return block.address

    def _release_available(self, pool: Pool, size: int) -> bool:
        """Never enough: expandable segments are not released so (``release_available_...``)."""
        return False

    def _collect_garbage(self) -> None:
        """Nothing: expandable segments are not collected (``garbage_collect_cached_blocks``)."""
