"""What masks cost, and when one reaches the attention function."""

from __future__ import annotations

import pytest

from memplan.dtypes import BF16, INT64
from memplan.engine import Kernels, Tape, Tensor, empty, run
from memplan.models.masks import create_causal_mask

B, N, HIDDEN = 2, 24, 8


def make(
    *, window: int | None = None, padding: bool = False, eager: bool = False, cache: bool = False
) -> tuple[tuple[int, ...] | None, list[int], int]:
    """(shape of the mask or none, blocks that were made, bytes that live on)."""
    with run(Tape(), Kernels()) as tape:
        embeds, positions = empty((B, N, HIDDEN), BF16), empty((1, N), INT64)
        padded = empty((B, N), INT64) if padding else None
        start = len(tape.events)
        mask: Tensor | None = create_causal_mask(
            "eager" if eager else "sdpa",
            embeds,
            padded,
            positions,
            past=0 if cache else None,
            sliding_window=window,
        )
        events = tape.events[start:]
        live = sum(e for e in events if e > 0) - sum(tape.events[~e] for e in events if e < 0)
        return (mask.shape if mask else None), [e for e in events if e > 0], live


def test_sdpa_gets_no_mask_where_causality_is_all() -> None:
    assert make()[0] is None
    assert make(window=N + 1)[0] is None


@pytest.mark.parametrize("window", [1, N - 1, N])
def test_a_window_that_is_reached_makes_a_mask(window: int) -> None:
    shape, _, live = make(window=window)
    assert shape == (B, 1, N, N)
    assert live == N * N  # one row of the batch; the others are a view


def test_padding_makes_a_mask_of_its_own_for_each_sequence() -> None:
    shape, _, live = make(padding=True)
    assert shape == (B, 1, N, N)
    assert live == B * N * N


def test_eager_attention_always_gets_numbers() -> None:
    shape, _, live = make(eager=True)
    assert shape == (B, 1, N, N)
    assert live == B * N * N * BF16.itemsize


def test_a_cache_spares_the_check_for_packed_sequences() -> None:
    assert make(cache=True)[1] == []
    assert len(make()[1]) == 8


def test_past_keys_always_need_a_mask_and_lengthen_it() -> None:
    with run(Tape(), Kernels()):
        embeds, positions = empty((B, N, HIDDEN), BF16), empty((1, N), INT64)
        mask = create_causal_mask("sdpa", embeds, None, positions, past=5)
        assert mask is not None
        assert mask.shape == (B, 1, N, N + 5)
        embeds, positions = empty((B, 1, HIDDEN), BF16), empty((1, 1), INT64)
        assert create_causal_mask("sdpa", embeds, None, positions, past=5) is None
