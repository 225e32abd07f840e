"""Replays a stream of events: peaks of every phase, and where memory ran out."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memplan.allocator.blocks import Block
from memplan.allocator.caching import Allocator
from memplan.allocator.memory import OutOfMemory
from memplan.allocator.rounding import GRANULE, SMALL_SIZE
from memplan.engine.tape import EMPTY_CACHE


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of events, and torch's counters at its end.

    Attributes:
        key: What the caller marked its end with.
        start: Number of its first event.
        stop: Number of the event after its last.
        requested_bytes: At its end. [bytes]
        allocated_bytes: At its end. [bytes]
        reserved_bytes: At its end. [bytes]
        peak_requested_bytes: Since its start, as after ``reset_peak_memory_stats``. [bytes]
        peak_allocated_bytes: Since its start. [bytes]
        peak_reserved_bytes: Since its start. [bytes]
        peak_event: Number of the event that first reached ``peak_allocated_bytes``; the one before
            ``start`` when it stood so from the start.
    """

    key: object
    start: int
    stop: int
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_event: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Phases in order, and where memory ran out.

    Attributes:
        phases: Those that were begun; the last one ends early when memory ran out.
        out_of_memory: The error, or ``None``.
        out_of_memory_event: Number of the allocation that found no room, or ``None``.
    """

    phases: tuple[Phase, ...]
    out_of_memory: OutOfMemory | None = None
    out_of_memory_event: int | None = None

    @property
    def fits(self) -> bool:
        """Whether every event found room."""
        return self.out_of_memory is None

    @property
    def peak_phase(self) -> Phase:
        """The phase that first reached the peak of allocated bytes; its ``peak_event`` is where."""
        return max(self.phases, key=lambda phase: phase.peak_allocated_bytes)

    @property
    def peak_requested_bytes(self) -> int:
        """Over all phases. [bytes]"""
        return max(phase.peak_requested_bytes for phase in self.phases)

    @property
    def peak_allocated_bytes(self) -> int:
        """Over all phases. [bytes]"""
        return max(phase.peak_allocated_bytes for phase in self.phases)

    @property
    def peak_reserved_bytes(self) -> int:
        """Over all phases. [bytes]"""
        return max(phase.peak_reserved_bytes for phase in self.phases)


def replay(
    allocator: Allocator,
    events: Sequence[int],
    marks: Iterable[tuple[int, object]],
    *,
    start: int = 0,
) -> Replay:
    """Counters of every phase of ``events``, from ``start`` to the last mark.

    The allocator goes on from where it stands, and can be given the rest of the same stream later.

    Args:
        allocator: Takes the events; blocks are numbered by their place in ``events``.
        events: ``>= 0``: a block of so many bytes, its number its index here; ``< 0``: block
            ``~event`` is freed. Blocks of no bytes never reach the allocator, as in torch.
        marks: (index, key) at which a phase ends and peaks start anew, in order; at a mark whose
            key is ``EMPTY_CACHE`` the cache is emptied instead.
        start: Number of the first event.
    """
    phases: list[Phase] = []
    allocator.reset_peaks()
    begin = start
    try:
        for index, key in marks:
            run_events(allocator, events, start, index)
            start = index
            if key == EMPTY_CACHE:
                allocator.empty_cache()
                continue
            phases.append(_phase(allocator, key, begin, index))
            allocator.reset_peaks()
            begin = index
    except OutOfMemory as error:
        stop = len(allocator.handles)
        phases.append(_phase(allocator, key, begin, stop))
        return Replay(tuple(phases), error, stop)
    return Replay(tuple(phases))


def _phase(allocator: Allocator, key: object, start: int, stop: int) -> Phase:
    return Phase(
        key=key,
        start=start,
        stop=stop,
        requested_bytes=allocator.requested,
        allocated_bytes=allocator.allocated * GRANULE,
        reserved_bytes=allocator.reserved * GRANULE,
        peak_requested_bytes=allocator.peak_requested,
        peak_allocated_bytes=allocator.peak_allocated * GRANULE,
        peak_reserved_bytes=allocator.peak_reserved * GRANULE,
        peak_event=start - 1 if allocator.peak_event < 0 else allocator.peak_event,
    )


def run_events(allocator: Allocator, events: Sequence[int], start: int, stop: int) -> None:
    """Take the events from ``start`` to before ``stop``.

    Raises:
        OutOfMemory: There is no room for the event at ``len(allocator.handles)``; those before it
            are done.
    """
    if allocator.is_plain:
        _run_plain(allocator, events, start, stop)
    else:
        _run_any(allocator, events, start, stop)


def _run_any(allocator: Allocator, events: Sequence[int], start: int, stop: int) -> None:
    handles = allocator.handles
    for index in range(start, stop):
        event = events[index]
        block = None
        if event > 0:
            before = allocator.peak_allocated
            block = allocator.malloc(event)
            if allocator.peak_allocated > before:
                allocator.peak_event = index
        elif event < 0:
            freed = handles[~event]
            if freed is not None:
                allocator.free(freed)
                handles[~event] = None
        handles.append(block)


def _run_plain(  # noqa: C901 - one loop on purpose: see below
    allocator: Allocator, events: Sequence[int], start: int, stop: int
) -> None:
    """``malloc`` and ``free`` of an allocator without special options, inlined.

    The hot path of every estimate: a call an event would double its time. It does what those
    methods do, in their order; a test holds the two equal on random streams. Blocks that merged
    away are used again, so that few are made, and the cyclic collector is rarely woken.
    """
    blocks, handles, grow = allocator.blocks, allocator.handles, allocator.grow
    small, large, small_size = allocator.small, allocator.large, SMALL_SIZE
    small_buckets, large_buckets = small.buckets, large.buckets
    allocated, requested = allocator.allocated, allocator.requested
    peak, peak_requested = allocator.peak_allocated, allocator.peak_requested
    peak_event = allocator.peak_event
    spare: list[Block] = []
    index = start
    handles.extend([None] * (stop - len(handles)))
    try:
        for index, event in enumerate(events[start:stop], start):
            if event > 0:
                size = (event + 511) >> 9
                buckets = small_buckets if size <= small_size else large_buckets
                bucket = buckets.get(size)
                if bucket:  # Pool.find: a block of just this size
                    block = blocks[bucket.pop(0)]
                    block.free = False
                else:
                    pool = small if size <= small_size else large
                    sizes = pool.sizes
                    i = bisect_left(sizes, size)
                    while i < len(sizes):  # Pool.find: the best fit
                        have = sizes[i]
                        bucket = buckets[have]
                        if bucket:
                            block = blocks[bucket.pop(0)]
                            break
                        del sizes[i], buckets[have]
                    else:
                        allocator.allocated = allocated
                        block = grow(pool, size, event)
                        have = block.size
                    block.free = False
                    rest_size = have - size
                    if rest_size > pool.slack:  # Allocator._cut, Pool.insert
                        address = block.address + size
                        rest = spare.pop() if spare else Block()
                        rest.address = address
                        rest.size = rest_size
                        rest.free = True
                        rest.prev = block
                        rest.next = after = block.next
                        after.prev = block.next = rest
                        block.size = size
                        blocks[address] = rest
                        bucket = buckets.get(rest_size)
                        if bucket is None:
                            buckets[rest_size] = [address]
                            insort(sizes, rest_size)
                        else:
                            insort(bucket, address)
                    else:
                        size = have
                handles[index] = block
                requested += event
                if requested > peak_requested:
                    peak_requested = requested
                allocated += size
                if allocated > peak:
                    peak = allocated
                    peak_event = index
            elif event < 0:
                number = ~event
                freed = handles[number]
                if freed is not None:
                    requested -= events[number]
                    size = freed.size
                    allocated -= size
                    buckets = small_buckets if size <= small_size else large_buckets
                    before = freed.prev
                    after = freed.next
                    if before.free:  # Allocator._merge: with the one before
                        have = before.size
                        bucket = buckets[have]
                        del bucket[bisect_left(bucket, before.address)]
                        size += have
                        before.size = size
                        before.next = after
                        after.prev = before
                        spare.append(freed)
                        freed = before
                    else:
                        freed.free = True
                    if after.free:  # Allocator._merge: with the one behind
                        have = after.size
                        bucket = buckets[have]
                        del bucket[bisect_left(bucket, after.address)]
                        size += have
                        freed.size = size
                        spare.append(after)
                        freed.next = after = after.next
                        after.prev = freed
                    bucket = buckets.get(size)  # Pool.insert
                    if bucket is None:
                        buckets[size] = [freed.address]
                        insort((small if buckets is small_buckets else large).sizes, size)
                    else:
                        insort(bucket, freed.address)
    except OutOfMemory:
        del handles[index:]
        raise
    finally:
        allocator.allocated, allocator.requested = allocated, requested
        allocator.peak_allocated, allocator.peak_requested = peak, peak_requested
        allocator.peak_event = peak_event
