"""Setting up, with commands and systems that are only pretended."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from memplan.errors import MissingError
from memplan.evidence.virtual import environment, installation
from memplan.evidence.virtual.environment import Environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMPLAN_HOME", str(tmp_path))
    return environment.home()


@pytest.fixture
def fitting_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000_000))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, fitting_system: None) -> list[str]:
    """Titles of the stages that were run; nothing is."""
    run: list[str] = []

    def pretend(command: Sequence[str], title: str, **_: str) -> str:
        run.append(title)
        return ""

    def finish(root: Path, progress: object) -> Environment:
        run.append("finish")
        return Environment(root / "bin" / "python", root, {})

    monkeypatch.setattr(installation, "run_command", pretend)
    monkeypatch.setattr(installation, "_finish", finish)
    return run


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("system", "Darwin", "needs Linux on x86_64.*Darwin"),
        ("machine", "aarch64", "this is Linux aarch64"),
        ("libc_ver", ("", ""), "not musl"),
    ],
)
def test_a_system_where_it_cannot_work_is_refused(
    name: str,
    value: object,
    reason: str,
    fitting_system: None,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, name, lambda: value)
    with pytest.raises(MissingError, match=reason) as caught:
        installation.install(lambda _: None)
    assert caught.value.exit_code == 3
    assert not home.exists()


def test_an_old_python_is_refused(
    fitting_system: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(MissingError, match=r"needs Python 3\.10"):
        installation.check_system()


def test_missing_tools_are_all_named(
    fitting_system: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool != "nm" else "/usr/bin/nm")
    with pytest.raises(MissingError, match=r"gcc, readelf: not found.*apt install"):
        installation.check_system()


def test_a_home_that_would_part_the_library_path_is_refused(
    fitting_system: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMPLAN_HOME", "/a:b")
    with pytest.raises(MissingError, match="colon"):
        installation.check_system()


def test_too_small_a_disk_is_refused_before_anything_is_installed(
    commands: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    with pytest.raises(MissingError, match=r"2\.0 GB free.*needs 2\.5 GB.*MEMPLAN_HOME"):
        installation.install(lambda _: None)
    assert commands == []


def test_stages_are_said_done_once_and_go_on_behind_the_last(
    commands: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    pretend = installation.run_command

    def interrupted(command: Sequence[str], title: str, **variables: str) -> str:
        if title == "what it needs":
            raise KeyboardInterrupt
        return pretend(command, title, **variables)

    monkeypatch.setattr(installation, "run_command", interrupted)
    with pytest.raises(KeyboardInterrupt):
        installation.install(said.append)
    assert [line[:5] for line in said] == ["[1/7]", "[2/7]", "[3/7]"]
    assert len(commands) == 2

    monkeypatch.setattr(installation, "run_command", pretend)
    said.clear()
    installation.install(said.append)
    assert [line[:5] for line in said] == ["[3/7]", "[4/7]", "[5/7]"]
    training, further = map(", ".join, (installation.TRAINING, installation.FURTHER))
    last = f"for some optimizers, kernels and quantisations: {further}"
    more = ["what it needs", training, last, "finish"]
    assert commands[2:] == more
    assert (home / environment.READY).is_file()


def test_what_is_there_is_not_made_again(
    commands: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Environment(home / "python", home, {})
    environment.setup(lambda _: None)
    commands.clear()
    monkeypatch.setattr(environment, "find", lambda venv=None: there)
    assert environment.setup(commands.append) is there
    assert commands == []


def test_other_versions_are_installed_over_those_that_are_there(
    commands: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.setup(lambda _: None)
    commands.clear()
    there = Environment(home / "python", home, {})
    monkeypatch.setattr(environment, "find", lambda venv=None: there)
    monkeypatch.setattr(installation, "TRAINING", ("peft==9.9",))
    environment.setup(lambda _: None)
    assert commands == ["peft==9.9", "finish"]


def test_a_second_setup_at_the_same_time_is_refused(home: Path) -> None:
    with (
        installation.locked(home),
        pytest.raises(MissingError, match="another setup is at work"),
        installation.locked(home),
    ):
        pass


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MissingError, match="Set MEMPLAN_HOME"),
        installation.locked(tmp_path / "file" / "home"),
    ):
        pass


def test_a_command_that_fails_says_its_last_line() -> None:
    program = "import sys; print('ERROR: no such version', file=sys.stderr); sys.exit(1)"
    with pytest.raises(MissingError, match="virtual GPU: torch: ERROR: no such version"):
        installation.run_command((sys.executable, "-c", program), "torch")


def test_the_callers_python_settings_do_not_reach_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    program = "import os; print(os.environ.get('PYTHONPATH'), os.environ['EXTRA'])"
    out = installation.run_command((sys.executable, "-c", program), "x", EXTRA="given")
    assert out == "None given\n"


def test_no_library_of_nvidia_is_asked_for() -> None:
    torch = installation.stages(Path("/venv"))[1]
    assert "--no-deps" in torch.command


def test_use_refuses_an_environment_without_torch(
    fitting_system: None, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingError, match="no Python environment"):
        environment.setup(lambda _: None, tmp_path / "venv")
