"""Byte units, integer rounding, and reading a size that a person wrote."""

from __future__ import annotations

from memplan.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": KIB,
    "MIB": MIB,
    "GIB": GIB,
    "TIB": TIB,
}


def ceil_div(value: int, divisor: int) -> int:
    """Quotient rounded up."""
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is not below ``value``."""
    return ceil_div(value, multiple) * multiple


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``24GiB``, ``24 GB``, ``79.1GiB`` or ``25769803776``. [bytes]

    Raises:
        ConfigError: The text is no such size, or it is not positive.
    """
    number = text.strip().rstrip("bBiIkKmMgGtT ")
    unit = text.strip()[len(number) :].strip().upper()
    if unit not in UNITS:
        raise ConfigError(
            f"size {text!r}: unknown unit {unit!r}; write bytes, or KiB, MiB, GiB, TiB (powers of "
            "1024) or KB, MB, GB, TB (powers of 1000)."
        )
    return _scaled(number, UNITS[unit], text)


def _scaled(number: str, unit: int, text: str) -> int:
    """``number`` times ``unit`` in exact integer arithmetic, the fraction of a byte dropped."""
    whole, _, fraction = number.strip().partition(".")
    digits = (whole or "0") + fraction
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 24:
        raise ConfigError(f"size {text!r}: expected a positive number and a unit, such as 24GiB.")
    value = int(digits) * unit // int("1" + "0" * len(fraction))
    if value <= 0:
        raise ConfigError(f"size {text!r}: must be positive.")
    return value
