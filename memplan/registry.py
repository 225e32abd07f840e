"""A table of named things: registering a name twice is an error, an unknown name lists the known.

Tables are filled at import and only read afterwards; aliases are names of their own that lead to
the same entry. A plain dict would raise ``KeyError`` without the nearest name, which is what a
person who mistyped needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from memplan.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Named entries of one kind.

    Example:
        >>> shapes: Registry[int] = Registry("shape")
        >>> shapes.add("square", 4, aliases=("box",))
        4
        >>> shapes["BOX"], shapes.canonical("box"), list(shapes)
        (4, 'square', ['square'])
    """

    def __init__(self, kind: str) -> None:
        """Make an empty table of ``kind``, the word that errors use."""
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._names: dict[str, str] = {}

    def add(self, name: str, entry: T, *, aliases: tuple[str, ...] = ()) -> T:
        """Register ``entry`` under ``name`` and return it."""
        for key in (name, *aliases):
            if key.lower() in self._names:
                raise ValueError(f"{self.kind} {key!r} is registered twice")
            self._names[key.lower()] = name
        self._entries[name] = entry
        return entry

    def register(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Register what is decorated."""
        return lambda entry: self.add(name, entry, aliases=aliases)

    def canonical(self, name: str) -> str:
        """Name under which an alias, in any case, is registered."""
        key = name.strip().lower()
        if key not in self._names:
            raise unknown_name(self.kind, name, self._names)
        return self._names[key]

    def __getitem__(self, name: str) -> T:
        """Return the entry of a name or alias."""
        return self._entries[self.canonical(name)]

    def __contains__(self, name: object) -> bool:
        """Whether a name or alias is known."""
        return isinstance(name, str) and name.strip().lower() in self._names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, aliases left out, in the order of their registration."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def aliases(self, name: str) -> tuple[str, ...]:
        """Other names of an entry."""
        return tuple(k for k, v in self._names.items() if v == name and k != name.lower())
