"""Finding what was set up, with folders made by hand; nothing is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from memplan.errors import MissingError
from memplan.evidence.virtual import build, environment

VERSION = "__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMPLAN_HOME", str(tmp_path / "home"))
    folder = environment.home()
    folder.mkdir(parents=True)
    return folder


def make_venv(root: Path, version: str = VERSION) -> Path:
    packages = root / "lib" / "python3.11" / "site-packages"
    (packages / "torch" / "lib").mkdir(parents=True)
    (packages / "torch" / "version.py").write_text(version)
    (packages / "torch" / "lib" / "libtorch.so").write_bytes(b"")
    (packages / "torch-2.14.1.dist-info").mkdir()
    (packages / "peft-0.21.2.dist-info").mkdir()
    (root / "bin").mkdir()
    (root / "bin" / "python").write_text("")
    return packages


def make_libraries(home: Path, packages: Path) -> Path:
    folder = home / build.folder_name(build.cuda_libraries(packages, "13.0"), "13.0")
    folder.mkdir(parents=True)
    (folder / build.COMPLETE).write_text("libcudart.so.13\n")
    return folder


def test_home_is_memplans_then_the_caches_then_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MEMPLAN_HOME", raising=False)
    assert environment.home() == Path("/me/.cache/memplan/virtual-gpu")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert environment.home() == Path("/cache/memplan/virtual-gpu")
    monkeypatch.setenv("MEMPLAN_HOME", "/given")
    assert environment.home() == Path("/given/virtual-gpu")


def test_nothing_is_found_where_nothing_was_set_up(home: Path) -> None:
    assert environment.find() is None
    with pytest.raises(MissingError, match=r"not set up\. .*memplan rehearse --setup") as caught:
        environment.require()
    assert caught.value.exit_code == 3


def test_own_environment_is_found_once_its_last_stage_is_done(home: Path) -> None:
    packages = make_venv(environment.own_environment())
    folder = make_libraries(home, packages)
    assert environment.find() is None
    (home / environment.READY).touch()

    found = environment.require()

    assert found.python == environment.own_environment() / "bin" / "python"
    assert found.libraries == folder
    assert dict(found.versions) == {"torch": "2.14.1", "peft": "0.21.2"}


def test_a_torch_that_changed_is_not_what_was_built_for(home: Path) -> None:
    packages = make_venv(environment.own_environment())
    make_libraries(home, packages)
    (home / environment.READY).touch()
    (packages / "torch" / "lib" / "libtorch.so").write_bytes(b"another")
    assert environment.find() is None


def test_the_environment_given_to_setup_is_found_without_naming_it(
    home: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    make_libraries(home, make_venv(mine))
    assert environment.find() is None
    (home / environment.CHOSEN).write_text(f"{mine}\n")
    assert environment.require().python == mine / "bin" / "python"
    assert environment.require(mine) == environment.require()


def test_require_names_the_environment_that_was_asked_for(home: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"--setup --venv .*elsewhere"):
        environment.require(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cuda = None", "not a CUDA build"),
        ("cuda: Optional[str] = None", "not a CUDA build"),
        ("cuda = '11.8'", "built for CUDA 11.8"),
    ],
)
def test_a_torch_that_cannot_is_refused(line: str, reason: str, tmp_path: Path) -> None:
    packages = make_venv(tmp_path / "venv", line + "\n")
    with pytest.raises(MissingError, match=reason):
        environment.cuda_of(packages)


@pytest.mark.parametrize("line", ["cuda = '12.8'", "cuda: Optional[str] = '13.0'"])
def test_cuda_12_and_13_are_read_without_importing(line: str, tmp_path: Path) -> None:
    assert environment.cuda_of(make_venv(tmp_path / "venv", line + "\n")) in ("12.8", "13.0")


def test_an_environment_without_torch_or_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no Python environment"):
        environment.site_packages(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("")
    with pytest.raises(MissingError, match="torch is not installed"):
        environment.site_packages(tmp_path)
