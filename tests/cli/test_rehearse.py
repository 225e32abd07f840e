"""``memplan rehearse``: what it prints, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from memplan.cli.app import main
from tests.evidence.rehearsals import fake_environment, write_script
from tests.evidence.test_recording import RECORDING

FITS = replace(RECORDING, out_of_memory=None)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_environment(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["rehearse", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_table_says_that_it_is_virtual(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--gpu", "a10g", "--", "python", str(write_script(tmp_path, FITS))) == 0
    said = capfd.readouterr().out
    assert said.index("said None") < said.index("Virtual GPU, not a CUDA run")
    assert "Fits a10g" in said
    assert "lm_head" in said
    assert max(map(len, said.splitlines())) <= 80


def test_out_of_memory_is_exit_code_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = write_script(tmp_path, RECORDING, code=1)
    assert run("--gpu", "a10g", "--", "python", str(script)) == 1
    assert "Does not fit a10g: out of memory at step 1, backward" in capfd.readouterr().out


def test_a_script_that_fails_gives_its_own_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--", "python", str(write_script(tmp_path, FITS, code=7))) == 7
    assert "The script failed: exit code 7" in capfd.readouterr().out


def test_json_has_the_keys_of_an_estimate(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", "--", "python", str(write_script(tmp_path, FITS))) == 0
    said = capfd.readouterr().out
    told = json.loads(said[said.index("{") :])
    assert told["peak_allocated_bytes"] == FITS.peak_allocated_bytes
    assert told["evidence"]["level"] == "virtual"
    assert told["gpu"]["fits"] is True
    assert told["phases"]["backward"]["peak_reserved_bytes"] == 50


def test_ranks_have_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--gpus", "2", "--", "python", str(write_script(tmp_path, FITS))) == 0
    assert "rank  requested" in capfd.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--gpu", "a10g"),
        ("--gpus", "none", "--", "true"),
        ("--steps", "0", "--", "true"),
        ("--ranks", "x", "--", "true"),
        ("--snapshot", "/no/such/folder/s.pickle", "--", "true"),
        ("python", "train.py"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_a_snapshot_never_overwrites(tmp_path: Path) -> None:
    there = tmp_path / "snapshot.pickle"
    there.write_text("mine")
    assert run("--snapshot", str(there), "--", "true") == 2
    assert there.read_text() == "mine"


def test_help_after_the_dashes_is_the_scripts(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--", "true", "--help") == 0
    assert "--gpu" not in capfd.readouterr().out
