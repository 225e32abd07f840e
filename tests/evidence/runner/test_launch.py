"""A run in a process of its own: what it is given, what it gives back, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import MissingError
from memplan.evidence.recording import DeviceFacts, PhaseCounters, Recording
from memplan.evidence.runner import launch

DEVICE = DeviceFacts("NVIDIA A10G", (8, 6), 24 << 30, 23 << 30)
RECORDING = Recording(
    device=DEVICE,
    versions={"torch": "2.14.1"},
    phases=(PhaseCounters("load", 0, 1, 512, 2 << 20, 1, 512, 2 << 20),),
)
WORKLOAD = {"model": "tiny", "rank": 8}


def stand_in(folder: Path, body: str) -> Path:
    """An interpreter that does ``body`` in place of the runner, with the job's path in argv[-1]."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable} -S\nimport json, os, sys\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def run(python: Path, **more: Any) -> Recording:
    return launch.run(WORKLOAD, {"model_type": "opt"}, python=python, environment={}, **more)


def test_the_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    text = json.dumps(RECORDING.to_mapping())
    body = f"job = json.load(open(sys.argv[-1]))\nopen(job['out'], 'w').write({text!r})"
    assert run(stand_in(tmp_path, body)) == RECORDING


def test_the_job_says_what_is_run(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    body = f"open({str(copy)!r}, 'w').write(open(sys.argv[-1]).read())\nsys.exit(3)"
    with pytest.raises(launch.MeasurementError):
        run(stand_in(tmp_path, body), history=False, snapshot=tmp_path / "s.pickle")
    job = json.loads(copy.read_text())
    assert job["workload"] == WORKLOAD
    assert job["model_config"] == {"model_type": "opt"}
    assert job["history"] is False
    assert job["snapshot"] == str(tmp_path / "s.pickle")


def test_a_rank_that_another_one_stopped_says_so(tmp_path: Path) -> None:
    body = "sys.stderr.write('stopped, since rank 1 is out of memory\\n')\nsys.exit(3)"
    with pytest.raises(launch.MeasurementError, match=r"^the run was stopped, since rank 1 is out"):
        run(stand_in(tmp_path, body))


def test_a_rank_of_one_device_is_not_told_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    body = "sys.stderr.write(str({'RANK', 'WORLD_SIZE'} & set(os.environ)))\nsys.exit(1)"
    with pytest.raises(launch.MeasurementError, match=r"set\(\)"):
        run(stand_in(tmp_path, body))


def test_a_crash_says_the_last_line_of_stderr(tmp_path: Path) -> None:
    body = "sys.stderr.write('Traceback\\n  line\\nImportError: no torch\\n\\n')\nsys.exit(1)"
    with pytest.raises(launch.MeasurementError, match=r"exit code 1\): ImportError: no torch"):
        run(stand_in(tmp_path, body))


def test_a_killed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(launch.MeasurementError, match="signal 9; the host is out of memory"):
        run(stand_in(tmp_path, "os.kill(os.getpid(), 9)"))


def test_a_run_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(launch.MeasurementError, match="left no recording"):
        run(stand_in(tmp_path, "pass"))


def test_no_interpreter_is_missing() -> None:
    with pytest.raises(MissingError, match="cannot be started"):
        run(Path("/no/such/python"))


def test_memplan_alone_is_importable(tmp_path: Path) -> None:
    with launch.importable() as path:
        assert [p.name for p in Path(path).iterdir()] == ["memplan"]
        code = "import memplan.evidence.recording as r; print(r.__file__)"
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            env={"PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith(path), done.stderr
    assert not Path(path).exists()


def test_the_host_s_module_path_stays_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/host")
    environment = launch.child_environment({"A": "1"}, "/ours")
    assert environment["PYTHONPATH"] == "/ours"
    assert environment["A"] == "1"
    assert launch.child_environment({"PYTHONPATH": "/theirs"}, "/ours")["PYTHONPATH"] == (
        "/ours:/theirs"
    )
