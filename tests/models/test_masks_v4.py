"""Masks of transformers v4.57: the blocks that its own code asked for on the virtual GPU."""

from __future__ import annotations

import pytest

from memplan.dtypes import BF16, INT64
from memplan.engine import Kernels, Tape, empty, run
from memplan.models.masks_v4 import create_causal_mask

N = 40


def events(batch: int, *, padding: bool = False, eager: bool = False) -> list[int]:
    """Bytes that are asked for, and given back as negative numbers."""
    with run(Tape(), Kernels()) as tape:
        embeds = empty((batch, N, 96), BF16)
        mask = empty((batch, N), INT64) if padding else None
        start = len(tape.events)
        made = create_causal_mask("eager" if eager else "sdpa", embeds, mask, has_cache=False)
        assert made is not None
        assert made.shape == (batch, 1, N, N)
        return [e if e >= 0 else -tape.events[~e] for e in tape.events[start:]]


# torch 2.14.1, transformers 4.57.6; what is given back in one go is sorted
@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        (
            {"batch": 3, "padding": True},
            [120, 1, 320, 24, 8, 40, 1600, 1600, 960, 960, 120, 4800],
        ),
        (
            {"batch": 3},
            [
                *(24, 984, 960, 120, 960, 960, 320, 24, 8, 40, 1600, 1600),
                *(960, 960, 960, 960, 960, 960, 4800, 4800),
            ],
        ),
        (
            {"batch": 1},
            [
                *(8, 328, 320, 40, 320, 320, 1279, 320, 8, 8, 40, 1600, 1600),
                *(320, 320, 320, 320, 1600, 1600),
            ],
        ),
        (
            {"batch": 1, "padding": True, "eager": True},
            [40, 320, 8, 8, 40, 1600, 1600, 320, 40, 1600, 2, 2, 3200],
        ),
    ],
)
def test_blocks_are_those_that_were_recorded(keys: dict[str, int], asked: list[int]) -> None:
    assert [e for e in events(**keys) if e > 0] == asked  # type: ignore[arg-type]


def test_only_the_mask_stays() -> None:
    assert sum(events(3)) == 3 * N * N
    assert sum(events(3, padding=True)) == 3 * N * N


def test_a_cache_spares_the_mask() -> None:
    with run(Tape(), Kernels()):
        embeds = empty((2, N, 96), BF16)
        assert create_causal_mask("sdpa", embeds, None, has_cache=True) is None
