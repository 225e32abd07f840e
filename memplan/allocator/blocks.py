"""Blocks, and the pools in which free ones wait.

Source:
    pytorch/pytorch v2.14.1 ``c10/cuda/CUDACachingAllocator.cpp``: ``Block``, ``BlockPool``,
    ``BlockComparatorSize``.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class Block:
    """A piece of a segment: handed out, or free in its pool.

    Attributes:
        address: Where it starts. [granules]
        size: Its length. [granules]
        prev: The piece before it in its segment, or the allocator's ``edge``.
        next: The piece after it, or the allocator's ``edge``.
        free: Whether it is in its pool. The ``edge`` never is, so nothing merges across it.
        requested: What was asked for, when it was handed out by ``malloc``. [bytes]
        born: The pool's count of searches when it was put there: garbage collection's age.
        mapped: Expandable segments only: whether memory stands behind it.
    """

    __slots__ = ("address", "born", "free", "mapped", "next", "prev", "requested", "size")

    address: int
    size: int
    prev: Block
    next: Block
    free: bool
    requested: int
    born: int
    mapped: bool


class Pool:
    """The free blocks of one pool: best fit by size, then by address.

    One list of addresses a size, because most requests find a block of just their size; sizes that
    ran empty stay listed until a search meets them, because they mostly come back.

    Attributes:
        is_small: The pool of blocks of at most 1 MiB.
        slack: What may be left of a block without being split off. [granules]
        buckets: Sorted addresses of the free blocks of each size.
        sizes: The keys of ``buckets``, sorted.
        blocks: Block by address, of the whole allocator.
        searches: Number of searches, counted for garbage collection.
        unmapped: Sorted addresses of the unmapped pieces of expandable segments.
    """

    __slots__ = ("blocks", "buckets", "is_small", "searches", "sizes", "slack", "unmapped")

    def __init__(self, *, is_small: bool, slack: int, blocks: dict[int, Block]) -> None:
        self.is_small = is_small
        self.slack = slack
        self.buckets: dict[int, list[int]] = {}
        self.sizes: list[int] = []
        self.blocks = blocks
        self.searches = 0
        self.unmapped: list[int] = []

    def insert(self, block: Block) -> None:
        """Put a free block in."""
        block.born = self.searches
        bucket = self.buckets.get(block.size)
        if bucket is None:
            self.buckets[block.size] = [block.address]
            insort(self.sizes, block.size)
        else:
            insort(bucket, block.address)

    def remove(self, block: Block) -> None:
        """Take a block out."""
        bucket = self.buckets[block.size]
        del bucket[bisect_left(bucket, block.address)]

    def find(self, size: int) -> Block | None:
        """The smallest block of at least ``size`` granules, of those the first; it stays in."""
        sizes = self.sizes
        i = bisect_left(sizes, size)
        while i < len(sizes):
            bucket = self.buckets[sizes[i]]
            if bucket:
                return self.blocks[bucket[0]]
            del self.buckets[sizes.pop(i)]
        return None

    def __iter__(self) -> Iterator[Block]:
        """All blocks, ordered by size and address; the pool must not change meanwhile."""
        for size in self.sizes:
            for address in self.buckets[size]:
                yield self.blocks[address]
