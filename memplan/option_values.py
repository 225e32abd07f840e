"""Ranges of values that an option of PEFT takes, where single values would be too many."""

from __future__ import annotations

from dataclasses import dataclass


class Values:
    """A range of values that an option may have; its ``repr`` says which, in words."""

    __slots__ = ()

    def takes(self, value: object) -> bool:
        """Whether a value is one of them."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Whole(Values):
    """Any whole number from ``least``."""

    least: int

    def takes(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.least

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return f"a whole number from {self.least}"


@dataclass(frozen=True, slots=True)
class Text(Values):
    """Any text."""

    def takes(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, str)

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return "a text"


@dataclass(frozen=True, slots=True)
class Decimal(Values):
    """Any number with a decimal point."""

    def takes(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, float)

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return "a number with a decimal point"


@dataclass(frozen=True, slots=True)
class Share(Values):
    """Any number from 0 and below 1."""

    def takes(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return "a number from 0 and below 1"


@dataclass(frozen=True, slots=True)
class Checked(Values):
    """Whatever the method finds in order, when it is applied to a model."""

    what: str

    def takes(self, value: object) -> bool:
        """Every value: the method has the last word."""
        return True

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return self.what


@dataclass(frozen=True, slots=True)
class Number(Values):
    """Any number."""

    def takes(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    def __repr__(self) -> str:
        """What may stand there, in words."""
        return "a number"
