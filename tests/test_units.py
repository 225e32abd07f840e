"""Byte units and rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.errors import ConfigError
from memplan.units import ceil_div, parse_bytes, round_up

sizes = st.integers(0, 1 << 80)
multiples = st.integers(1, 1 << 30)


@given(sizes, multiples)
def test_rounding_is_idempotent_and_never_below(size: int, multiple: int) -> None:
    rounded = round_up(size, multiple)
    assert size <= rounded < size + multiple
    assert rounded % multiple == 0
    assert round_up(rounded, multiple) == rounded
    assert ceil_div(size, multiple) * multiple == rounded


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1B", 1),
        ("1 KiB", 1024),
        ("1kb", 1000),
        ("1.5 MiB", 3 << 19),
        (".5GiB", 1 << 29),
        ("2TB", 2 * 10**12),
        ("79.14GiB", 7914 * (1 << 30) // 100),
    ],
)
def test_sizes_are_read_exactly(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "1G", "1 XiB", "-1GiB", "0", "1e9", "1.2.3GiB", chr(0x661) + "GiB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse_bytes(text)
