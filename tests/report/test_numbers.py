from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memplan.report.numbers import format_gib, format_share, format_size

GIB = 1 << 30


def test_gib_has_two_decimals() -> None:
    assert format_gib(3 * GIB // 2) == "1.50"


def test_what_is_there_never_reads_as_nothing() -> None:
    assert format_gib(1) == "<0.01"
    assert format_gib(0) == "0.00"
    assert format_share(1, GIB) == "<0.1 %"


@given(st.integers(min_value=0, max_value=1 << 50))
def test_gib_is_within_half_a_hundredth(nbytes: int) -> None:
    text = format_gib(nbytes)
    shown = 0.0 if text.startswith("<") else float(text)
    assert abs(shown - nbytes / GIB) <= 0.00500001


def test_size_has_the_unit_that_leaves_a_readable_number() -> None:
    assert [format_size(n) for n in (512, 3 << 20, 5 * GIB)] == ["512 B", "3.0 MiB", "5.00 GiB"]
