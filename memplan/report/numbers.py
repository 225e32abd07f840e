"""Sizes and shares as people read them: the only place where bytes are rounded."""

from __future__ import annotations

from memplan.units import GIB, MIB


def format_gib(nbytes: int) -> str:
    """Bytes in GiB to two decimals; what is there but rounds to nothing reads ``<0.01``.

    >>> format_gib(14_495_514_624), format_gib(4096), format_gib(0), format_gib(-4096)
    ('13.50', '<0.01', '0.00', '-<0.01')
    """
    text = f"{nbytes / GIB:.2f}"
    if nbytes and text in ("0.00", "-0.00"):
        return "<0.01" if nbytes > 0 else "-<0.01"
    return text


def format_size(nbytes: int) -> str:
    """Bytes with the unit that leaves a readable number.

    >>> format_size(25_282_805_760), format_size(33_554_432), format_size(512)
    ('23.55 GiB', '32.0 MiB', '512 B')
    """
    if abs(nbytes) >= GIB:
        return f"{nbytes / GIB:.2f} GiB"
    if abs(nbytes) >= MIB:
        return f"{nbytes / MIB:.1f} MiB"
    return f"{nbytes:,} B"


def format_share(part: int, whole: int) -> str:
    """A part of a whole in percent.

    >>> format_share(1, 3), format_share(1, 100_000), format_share(0, 3), format_share(0, 0)
    ('33.3 %', '<0.1 %', '0.0 %', '-')
    """
    if not whole:
        return "-"
    percent = 100 * part / whole
    return "<0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def format_percent(fraction: float) -> str:
    """A fraction in percent to two significant digits, for shares that may be tiny.

    >>> format_percent(0.000622), format_percent(1.0), format_percent(0.0)
    ('0.062 %', '100 %', '0 %')
    """
    return f"{100 * fraction:.3g} %" if fraction >= 0.01 else f"{100 * fraction:.2g} %"


def format_count(elements: int) -> str:
    """A number of parameters in thousands, millions or billions.

    >>> format_count(6_738_415_616), format_count(4_194_304), format_count(0)
    ('6.74 B', '4.19 M', '0')
    """
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if elements >= limit:
            return f"{elements / limit:.2f} {unit}"
    return str(elements)
