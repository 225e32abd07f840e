from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from memplan.cli.measure import COMMANDS
from memplan.errors import ConfigError, MemplanError, MissingError
from memplan.evidence import targets
from memplan.evidence.recording import Recording
from memplan.evidence.records import read
from memplan.evidence.runner import launch
from memplan.report.measurement import measurement_report
from tests.evidence.measurements import (
    STOP,
    TARGET,
    fake_run,
    make_measurement,
    make_recording,
)

ROOT = Path(__file__).parents[2]
GRID = ["--grid", "--method", "lora", "--quantization", "none", "--model", "1b"]
# The command with a fake runner, for a process that can be killed.
SLOW = """
import sys, time
from memplan.cli.measure import COMMANDS
from memplan.evidence import targets
from memplan.evidence.runner import launch
from tests.evidence.measurements import TARGET, fake_run

def slow(*args, **options):
    time.sleep(0.05)
    return fake_run(*args, **options)

launch.run = slow
targets.find_target = lambda *args, **options: TARGET
sys.exit(COMMANDS["measure"].run(sys.argv[1:], program="memplan measure"))
"""


def measure(*words: str) -> int:
    return COMMANDS["measure"].run(words, program="memplan measure")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for records; nothing really runs."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(launch, "run", fake_run)
    monkeypatch.setattr(targets, "find_target", lambda *_, **__: TARGET)
    return tmp_path / "m.jsonl"


def test_one_run_is_recorded_and_shown_beside_its_estimate(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure("--model", "1b", "--seq-len", "64", "--out", str(out)) == 0
    text = capsys.readouterr().out
    assert len(read(out)) == 1
    assert "virtual: measured on the virtual GPU as NVIDIA A10G" in text
    for word in ("measured", "estimated", "difference", "allocated", "forward", str(out.name)):
        assert word in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_json_is_the_line_that_was_appended(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure("--model", "1b", "--out", str(out), "--json") == 0
    assert capsys.readouterr().out == out.read_text()


def test_grid_is_recorded_and_goes_on_where_it_stopped(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(*GRID, "--seq-len", "64", "--out", str(out)) == 0
    assert "1 run." in capsys.readouterr().out
    assert measure(*GRID, "--out", str(out)) == 0
    assert measure(*GRID, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert "2 already are, and are not run again" in printed.out
    assert "0 of 0 runs are recorded" in printed.err
    assert [m.workload["seq_len"] for m in read(out)] == [64, 2048, 512]


def test_grid_tells_what_it_skips_and_why(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--grid", "--model", "7b", "--seq-len", "512", "--out", str(out))
    assert measure(*words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "skipped llama-2-7b, full" in text
    assert "predicted to lack" in text
    assert "refused method full does not go with quantization nf4" in text


def test_grid_file_is_read(out: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.json"
    file.write_text('{"model": ["qwen2.5-0.5b"], "seq_len": [32, 64], "gpu": ["a10g"]}')
    assert measure("--grid", str(file), "--out", str(out)) == 0
    assert len(read(out)) == 2
    with pytest.raises(ConfigError, match="no such file"):
        measure("--grid", str(tmp_path / "none.json"), "--out", str(out))


def test_run_that_crashes_is_one_line_and_exit_code_1(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(workload: Mapping[str, Any], *args: Any, **options: Any) -> Recording:
        if workload["seq_len"] == 512:
            return make_recording(out_of_memory=STOP)
        raise launch.MeasurementError("the run crashed (signal 9): Killed")

    monkeypatch.setattr(launch, "run", crash)
    assert measure(*GRID, "--out", str(out)) == 1
    printed = capsys.readouterr()
    assert "not recorded: the run crashed (signal 9): Killed" in printed.err
    assert "Out of memory at step 2, forward, model.layers.3.mlp" in printed.out
    assert [m.recording.out_of_memory for m in read(out)] == [STOP]
    assert measure("--model", "1b", "--out", str(out)) == 1


def test_interrupt_keeps_what_is_finished(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(workload: Mapping[str, Any], *args: Any, **options: Any) -> Recording:
        if workload["seq_len"] == 512:
            raise KeyboardInterrupt
        return fake_run(workload, *args, **options)

    monkeypatch.setattr(launch, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(*GRID, "--out", str(out))
    assert len(read(out)) == 1


def test_nothing_runs_when_it_could_not_be_recorded(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*args: Any, **options: Any) -> Recording:
        raise AssertionError("it ran")

    monkeypatch.setattr(launch, "run", run)
    for path in (tmp_path, tmp_path / "no" / "m.jsonl", Path("/dev/full")):
        with pytest.raises(MemplanError) as error:
            measure("--model", "1b", "--out", str(path))
        assert error.value.exit_code == 2
    with pytest.raises(ConfigError, match="--snapshot"):
        measure("--model", "1b", "--out", str(out), "--snapshot", str(tmp_path))


def test_record_that_cannot_be_written_any_more_is_printed(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MemplanError, match="No space left on device"):
        measure("--model", "1b", "--out", str(out))
    monkeypatch.undo()
    assert json.loads(capsys.readouterr().out)["schema"] == "memplan.measurement/1"


def test_corrupt_records_are_an_error_before_a_grid_runs(out: Path) -> None:
    out.write_text("{}\n")
    with pytest.raises(ConfigError, match=r"m\.jsonl:1"):
        measure(*GRID, "--out", str(out))
    assert out.read_text() == "{}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--seq-len 64", "model: not given"),
        ("--grid --snapshot s.pickle", "--snapshot: goes with one run"),
        ("--model 1b --strategy fsdp2", "torchrun --nproc-per-node 2 -m memplan measure"),
        ("--model 1b --strategy zero3", "measure runs single, ddp, fsdp2"),
        ("--virtual --model 1b --strategy ddp", "say over how many devices"),
        ("--virtual --model 1b --strategy ddp --dp-size 17", "at most 16 ranks"),
        ("--virtual --model 1b --dp-size 2", "take a strategy"),
        ("--model 1b --strategy ddp --loop trainer", "runs in the plain loop"),
        ("--model 1b --seq-len x", "seq_len"),
    ],
)
def test_bad_input_is_one_sentence(words: str, told: str, out: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        measure(*words.split(), "--out", str(out))


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "probe", lambda python, local: {"missing": ["torch"]})
    with pytest.raises(MissingError, match="pip install"):
        measure("--model", "1b", "--out", str(tmp_path / "m.jsonl"))


def test_every_rank_of_a_virtual_run_is_a_line_and_a_row(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(workload: Mapping[str, Any], *args: Any, **options: Any) -> Recording:
        assert options["alone"]
        rank = options["environment"]["RANK"]
        if rank == "1":
            return make_recording(out_of_memory=STOP)
        if rank == "2":
            raise launch.MeasurementError("the run crashed (signal 9): Killed")
        return fake_run(workload, *args, **options)

    monkeypatch.setattr(launch, "run", run)
    words = "--virtual --model 1b --strategy fsdp2 --dp-size 3 --seq-len 64 --out"
    assert measure(*words.split(), str(out)) == 1
    printed = capsys.readouterr()
    assert "rank 2: the run crashed (signal 9): Killed" in printed.err
    for words in ("rank 0 of 3", "strategy fsdp2, dp size 3", "by rank", "out of memory"):
        assert words in " ".join(printed.out.split())
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    assert [(m.rank, m.world_size) for m in read(out)] == [(0, 3), (1, 3)]
    assert [m.recording.out_of_memory for m in read(out)] == [None, STOP]


def process_of(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Be one of ``torchrun``'s processes."""
    monkeypatch.setattr(
        targets,
        "find_target",
        lambda *_, **__: replace(TARGET, label="cuda", rank=rank, world_size=size),
    )
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": 29500}
    for name, value in (*values.items(), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, str(value))


def test_processes_of_torchrun_have_a_line_each_and_one_table(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--model 1b --strategy ddp --seq-len 64 --out"
    for rank in (0, 1):
        process_of(monkeypatch, rank, 2)
        assert measure(*words.split(), str(out)) == 0
    text = capsys.readouterr().out
    assert text.count("measured on NVIDIA A10G, rank 0 of 2") == 1
    assert "rank 1: peak requested 1.00 GiB, allocated 1.00 GiB, reserved 2.00 GiB" in text
    assert [(m.rank, m.world_size, m.workload["dp_size"]) for m in read(out)] == [
        (0, 2, 2), (1, 2, 2),
    ]  # fmt: skip
    assert len({m.id for m in read(out)}) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "torchrun started 2 processes .* add --strategy ddp or --strategy fsdp2"),
        ("--strategy ddp --dp-size 4", "dp_size: 4, but torchrun started 2"),
        ("--virtual --strategy ddp", "start it without torchrun, with --dp-size 2"),
    ],
)
def test_processes_that_do_not_go_with_the_run_are_refused(
    words: str, told: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_of(monkeypatch, 1, 2)
    with pytest.raises(ConfigError, match=told):
        measure("--model", "1b", *words.split(), "--out", str(out))
    assert not out.exists()


def test_grid_of_ranks_goes_on_where_it_stopped(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*GRID, "--seq-len", "64", "--strategy", "ddp", "--out", str(out)]
    process_of(monkeypatch, 0, 2)
    assert measure(*words) == 0
    assert measure(*words) == 0  # the line of the other rank is not there yet
    process_of(monkeypatch, 1, 2)
    assert measure(*words) == 0
    assert [m.rank for m in read(out)] == [0, 0, 1]
    capsys.readouterr()
    assert measure(*words) == 0
    assert "1 already are, and are not run again" in capsys.readouterr().out


def start(out: Path) -> subprocess.Popen[str]:
    grid = out.with_suffix(".json")
    grid.write_text(json.dumps({"model": "qwen2.5-0.5b", "seq_len": list(range(8, 104, 8))}))
    command = [sys.executable, "-c", SLOW, "--grid", str(grid), "--out", str(out), "--json"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_killed_during_a_grid_loses_no_finished_record(out: Path) -> None:
    process = start(out)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.communicate()[0].splitlines(keepends=True)
    seen = [json.loads(line)["id"] for line in lines if line.endswith("\n")]
    kept = read(out, tell=lambda text: None)
    assert set(seen) <= {m.id for m in kept}
    assert len(seen) < 12
    process = start(out)
    process.communicate()
    assert process.returncode == 0
    assert len({m.workload["seq_len"] for m in read(out, tell=lambda text: None)}) == 12


def test_report_without_an_estimate_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    recording = make_recording(device_used_bytes=3 << 30, notes=("a note",))
    report = measurement_report(make_measurement(recording=recording), None)
    Console(width=80).print(report)
    text = capsys.readouterr().out
    for words in ("does not know this workload yet", "nvidia-smi", "a note"):
        assert words in text


@pytest.mark.virtual
def test_one_run_end_to_end_on_the_virtual_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.jsonl"
    words = "--virtual --model qwen2.5-0.5b --method lora --seq-len 64 --gpu a10g --out"
    assert measure(*words.split(), str(out)) == 0
    text = capsys.readouterr().out
    assert text.count("equal") >= 3
    (measurement,) = read(out)
    assert measurement.label == "virtual"


@pytest.mark.virtual
def test_grid_end_to_end_on_the_virtual_gpu(tmp_path: Path) -> None:
    out, grid = tmp_path / "m.jsonl", tmp_path / "grid.json"
    grid.write_text('{"model": "qwen2.5-0.5b", "seq_len": [32, 64], "steps": 1}')
    words = ("--virtual", "--gpu", "t4", "--grid", str(grid), "--out", str(out))
    assert measure(*words) == 0
    assert {m.label for m in read(out)} == {"virtual"}
    assert len(read(out)) == 2
