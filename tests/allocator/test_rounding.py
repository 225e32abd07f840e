"""Sizes of blocks and segments, with numbers that a reader can redo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.allocator.rounding import GRANULE, block_size, next_division, segment_size
from memplan.units import MIB

LARGE_SEGMENT = 20 * MIB // GRANULE
QUARTERS = (4,) * 16


def block_bytes(nbytes: int, divisions: tuple[int, ...] = ()) -> int:
    return block_size(nbytes, divisions) * GRANULE


def segment_bytes(nbytes: int) -> int:
    return segment_size(block_size(nbytes), LARGE_SEGMENT) * GRANULE


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [(1, 512), (512, 512), (513, 1024), (1024, 1024), (MIB - 1, MIB), (MIB + 1, MIB + 512)],
)
def test_a_block_is_a_multiple_of_512_bytes(nbytes: int, expected: int) -> None:
    assert block_bytes(nbytes) == expected


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 1024, 20 * MIB),
        (10 * MIB - 1, 10 * MIB),  # it is rounded to 10 MiB first
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (20 * MIB + 1, 22 * MIB),
    ],
)
def test_a_segment_is_2_or_20_mib_or_the_block_rounded_to_2_mib(nbytes: int, expected: int) -> None:
    assert segment_bytes(nbytes) == expected


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (1, 512),
        (2048, 2048),  # not above 4 x 512: granules
        (2049, 2560),  # between 2048 and 4096 in quarters of 512
        (5000, 5120),  # between 4096 and 8192 in quarters of 1024
        (MIB + 1, MIB + MIB // 4),
        (3 * MIB + 5, 3 * MIB + MIB // 2),
        (17 * MIB + 1, 20 * MIB),
    ],
)
def test_four_divisions_round_to_quarters_of_the_power_of_two_below(
    nbytes: int, expected: int
) -> None:
    assert block_bytes(nbytes, QUARTERS) == expected


def test_each_power_of_two_has_its_own_divisions() -> None:
    # [1:2,4:8]: up to 2 MiB halves, 2 to 4 MiB none, 4 to 8 MiB eighths; as torch 2.14.1 has it
    divisions = (2, 0, 8) + (0,) * 13
    assert block_bytes(5000, divisions) == 6144
    assert block_bytes(2 * MIB + 1, divisions) == 2 * MIB + 512
    assert block_bytes(5 * MIB + 7, divisions) == 5 * MIB + MIB // 2
    assert block_bytes(9 * MIB + 3, divisions) == 9 * MIB + 512


def test_torchs_own_example_of_divisions() -> None:
    assert next_division(1200, 4) == 1280


sizes = st.one_of(st.integers(1, 1 << 36), st.integers(1, 1 << 12))
divisions_of_sizes = st.sampled_from([(), QUARTERS, (2,) * 16, (16, 0, 8, 1) * 4])


@given(sizes, divisions_of_sizes)
def test_rounding_is_idempotent_and_never_below_the_request(
    nbytes: int, divisions: tuple[int, ...]
) -> None:
    rounded = block_bytes(nbytes, divisions)
    assert rounded >= nbytes
    assert block_bytes(rounded, divisions) == rounded


@given(sizes, sizes)
def test_more_bytes_never_need_a_smaller_block(a: int, b: int) -> None:
    assert block_size(min(a, b)) <= block_size(max(a, b))


@given(sizes)
def test_a_segment_holds_its_block(nbytes: int) -> None:
    assert segment_bytes(nbytes) >= block_bytes(nbytes)
