"""Read a JSON, YAML or TOML mapping from a file that nobody vouches for.

Size, depth and number of values are bounded, names that occur twice are refused, and whatever is
wrong becomes one `ConfigError` that names the file. Libraries are imported when a file needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from memplan.errors import ConfigError

MAX_FILE_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 200_000
MERGE = "tag:yaml.org,2002:merge"


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a ``.json``, ``.yaml``, ``.yml`` or ``.toml`` file holds."""
    parse = PARSERS.get(path.suffix.lower())
    if parse is None:
        known = ", ".join(PARSERS)
        raise ConfigError(f"{path}: cannot tell the format from the name; expected one of {known}.")
    return parse_mapping(path, parse)


def read_json_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds, whatever it is called."""
    return parse_mapping(path, _parse_json)


def parse_mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Read ``path``, parse it, and check that it is a mapping of plain values."""
    text = _read_text(path)
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty; expected a mapping of keys to values.")
    try:
        value = parse(text)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None
    return checked_mapping(value, str(path))


def checked_mapping(value: Any, where: str) -> dict[str, Any]:
    """``value`` if it is a mapping with string keys, not too deep and not too large."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of keys to values, got {_kind(value)}.")
    _check_plain(value, where)
    return dict(value)


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a directory, not a file.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; this is no configuration file."
            )
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8.") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested too deep; at most {MAX_DEPTH} levels are read."
    return "cannot be read: " + " ".join(str(error).split()) + "."


def _parse_json(text: str) -> Any:
    import json

    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} occurs twice")
        seen[key] = value
    return seen


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that a size can have")


def _parse_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    return tomllib.loads(text)


def _parse_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses a key that occurs twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            if isinstance(node, yaml.MappingNode):
                self.refuse_twice(k for k, _ in node.value if k.tag != MERGE)
            return super().construct_mapping(node, deep=deep)

        def refuse_twice(self, nodes: Iterable[Any]) -> None:
            seen: set[object] = set()
            for node in nodes:
                key = self.construct_object(node, deep=True)
                if not isinstance(key, (str, int)) or key in seen:
                    raise ValueError(f"the key {key!r} occurs twice or is no name")
                seen.add(key)

    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": _parse_json,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".toml": _parse_toml,
}


def _check_plain(value: Any, where: str) -> None:
    """Refuse what is too deep or too large once aliases are followed, and keys that are no text."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    count = 0
    while stack:
        item, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}: nested too deep; at most {MAX_DEPTH} levels are read.")
        if count > MAX_VALUES:
            raise ConfigError(f"{where}: holds more than {MAX_VALUES:,} values.")
        if isinstance(item, Mapping):
            _check_keys(item, where)
            stack += [(v, depth + 1) for v in item.values()]
        elif isinstance(item, (list, tuple)):
            stack += [(v, depth + 1) for v in item]


def _check_keys(item: Mapping[Any, Any], where: str) -> None:
    for key in item:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: the key {key!r} is not text.")


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
