"""What a rehearsal starts, and what it makes of what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from memplan.errors import ConfigError, MissingError
from memplan.evidence import rehearse as module
from memplan.evidence.rehearse import rehearse
from tests.evidence.rehearsals import fake_environment, write_script
from tests.evidence.test_recording import RECORDING

FITS = replace(RECORDING, out_of_memory=None)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_environment(monkeypatch)


def test_the_recording_of_the_script_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = write_script(tmp_path, FITS)
    (done,) = rehearse(["python", str(script), "--batch-size", "2"], gpu="a10g")
    assert done.recording == FITS
    assert (done.fits, done.exit_code, done.world_size) == (True, 0, 1)
    assert capfd.readouterr().out == "said None None --batch-size 2\n"


def test_a_script_needs_no_python_before_it(tmp_path: Path) -> None:
    (done,) = rehearse([str(write_script(tmp_path, FITS))])
    assert done.recording == FITS


def test_out_of_memory_does_not_fit(tmp_path: Path) -> None:
    (done,) = rehearse(["python", str(write_script(tmp_path, RECORDING, code=1))])
    assert not done.fits


def test_every_rank_runs_and_is_told_which(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = write_script(tmp_path, FITS)
    done = list(rehearse(["python", str(script)], gpus=3))
    assert [r.rank for r in done] == [0, 1, 2]
    assert capfd.readouterr().out == "said 0 3\nsaid 1 3\nsaid 2 3\n"


def test_some_ranks_may_do(tmp_path: Path) -> None:
    done = list(rehearse(["python", str(write_script(tmp_path, FITS))], gpus=8, ranks=(0, 7)))
    assert [r.rank for r in done] == [0, 7]


def test_of_several_processes_the_one_that_trained_counts(tmp_path: Path) -> None:
    for name, recording in (("1", FITS), ("2", replace(FITS, phases=()))):
        (tmp_path / f"{name}.json").write_text(json.dumps(recording.to_mapping()), encoding="utf-8")
    assert module.read_recording(tmp_path, tmp_path / "notes.txt") == FITS


def test_what_the_device_noted_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(FITS.to_mapping()))
    notes = tmp_path / "notes.txt"
    notes.write_text("a size that depends on values\n" * 2)
    recording = module.read_recording(tmp_path, notes)
    assert recording is not None
    assert recording.notes == ("a note", "a size that depends on values")


@pytest.mark.parametrize(
    ("command", "keys", "said"),
    [
        ([], {}, "no command"),
        (["python", "no-such-script.py"], {}, "no such file"),
        (["no-such-program"], {}, "cannot be started"),
        (["true"], {"gpus": 99}, "expected 1 to 16"),
        (["true"], {"gpus": 2, "ranks": (2,)}, "none of the 2 ranks"),
        (["true"], {"gpu": "a10gg"}, "a10g"),
    ],
)
def test_bad_input_is_refused(command: list[str], keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(rehearse(command, **keys))  # type: ignore[arg-type]


def test_without_the_environment_it_says_how_to_set_it_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MEMPLAN_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="memplan rehearse --setup"):
        list(rehearse(["true"]))


def test_a_script_that_never_uses_the_device_leaves_nothing() -> None:
    (done,) = rehearse(["true"])
    assert done.recording is None
    assert done.fits
