"""The environment of the adapters library, with commands that are only pretended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from memplan.errors import MissingError
from memplan.evidence.virtual import adapters, installation
from memplan.evidence.virtual.environment import Environment


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment that has torch, and nothing beside it."""
    monkeypatch.setenv("MEMPLAN_HOME", str(tmp_path / "home"))
    root = tmp_path / "venv"
    torch = root / "lib" / "python3.11" / "site-packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "version.py").touch()
    (root / "bin").mkdir()
    (root / "bin" / "python").touch()
    versions = {"torch": "2.14.1", "transformers": "5.18.0"}
    return Environment(root / "bin" / "python", tmp_path / "libraries", versions)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Commands that were run: they leave the folders that they would."""
    run: list[Sequence[str]] = []

    def pretend(command: Sequence[str], title: str, **_: str) -> str:
        run.append(command)
        if command[2] == "venv":
            packages = Path(command[-1], "lib", "python3.11", "site-packages")
            packages.mkdir(parents=True)
            (packages / "transformers-4.57.6.dist-info").mkdir()
        return ""

    monkeypatch.setattr(installation, "run_command", pretend)
    return run


def test_other_methods_run_where_they_did(base: Environment) -> None:
    assert adapters.environment_for("lora", base) is base


def test_without_it_the_method_says_how_to_set_it_up(base: Environment) -> None:
    with pytest.raises(MissingError, match="memplan rehearse --setup --with adapters"):
        adapters.environment_for("bottleneck_adapter", base)


def test_it_looks_into_the_environment_beside_it(
    base: Environment, commands: list[Sequence[str]]
) -> None:
    made = adapters.setup(lambda _: None, base)
    assert made == adapters.environment_for("bottleneck_adapter", base)
    assert made.libraries == base.libraries
    assert made.versions == {"torch": "2.14.1", "transformers": "4.57.6"}
    root = made.python.parent.parent
    (line,) = (root / "lib/python3.11/site-packages" / adapters.BESIDE).read_text().splitlines()
    assert Path(line) == base.python.parent.parent / "lib/python3.11/site-packages"
    assert commands[0][0] == str(base.python)
    assert commands[1][-4:] == adapters.PACKAGES


def test_it_is_made_once(base: Environment, commands: list[Sequence[str]]) -> None:
    adapters.setup(lambda _: None, base)
    adapters.setup(lambda _: None, base)
    assert len(commands) == 2
