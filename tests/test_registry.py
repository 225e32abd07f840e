"""Registries: no name twice, and the nearest name for one that is unknown."""

from __future__ import annotations

import pytest

from memplan.errors import UnknownNameError
from memplan.registry import Registry


def table() -> Registry[int]:
    registry: Registry[int] = Registry("shape")
    registry.add("square", 4, aliases=("box",))
    registry.register("triangle")(3)
    return registry


def test_names_and_aliases_lead_to_the_entry_in_any_case() -> None:
    assert table()["Square"] == table()["BOX"] == 4
    assert table().canonical("box") == "square"
    assert table().aliases("square") == ("box",)
    assert list(table()) == ["square", "triangle"]
    assert "box" in table()
    assert 4 not in table()


@pytest.mark.parametrize("name", ["square", "box", "SQUARE"])
def test_registering_a_name_twice_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="registered twice"):
        table().add(name, 1)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown shape 'sqare'"):
        table()["sqare"]
