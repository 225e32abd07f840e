from __future__ import annotations

from memplan.dtypes import BF16, FP32
from memplan.engine import Kernels, Tape, empty, run
from memplan.models.cache import DynamicCache

B, HEADS, N, D = 1, 2, 40, 16
BLOCK = B * HEADS * N * D


def test_keys_and_values_are_copied() -> None:
    with run(Tape(), Kernels()) as tape:
        keys, values = empty((B, HEADS, N, D), BF16), empty((B, HEADS, N, D), BF16)
        cache = DynamicCache(("full_attention",), None)
        cache.update(keys, values, 0)
        assert tape.events == [BLOCK * 2] * 4


def test_values_take_the_keys_dtype() -> None:
    with run(Tape(), Kernels()):
        keys, values = empty((B, HEADS, N, D), FP32), empty((B, HEADS, N, D), BF16)
        _, cached = DynamicCache(("full_attention",), None).update(keys, values, 0)
        assert cached.dtype is FP32


def test_a_window_keeps_a_view_of_whole_copies() -> None:
    with run(Tape(), Kernels()) as tape:
        keys, values = empty((B, HEADS, N, D), BF16), empty((B, HEADS, N, D), BF16)
        cache = DynamicCache(("sliding_attention",), 8)
        seen, _ = cache.update(keys, values, 0)
        assert seen.shape[2] == N
        kept = cache.layers[0].keys
        assert kept is not None
        assert kept.shape[2] == 7
        del kept
        del seen
        assert tape.events == [BLOCK * 2] * 2 + [8] + [BLOCK * 2] * 2


def test_a_cache_of_data_grows() -> None:
    with run(Tape(), Kernels()) as tape:
        data = [empty((2, B, HEADS, 3, D), BF16) for _ in range(2)]
        start = len(tape.events)
        cache = DynamicCache.of_data(data)
        assert tape.events[start:] == [B * HEADS * 3 * D * 2] * 4
        assert cache.get_seq_length() == 3
        keys, values = empty((B, HEADS, N, D), BF16), empty((B, HEADS, N, D), BF16)
        seen, _ = cache.update(keys, values, 1)
        assert seen.shape[2] == 3 + N
        assert cache.get_seq_length() == 3
