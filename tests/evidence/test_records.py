from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError, MemplanError
from memplan.evidence import records
from memplan.evidence.records import UNFINISHED, Measurement, Writer, append, read, to_line
from tests.evidence.measurements import make_measurement

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from tests.evidence.measurements import make_measurement
from memplan.evidence.records import Writer
with Writer(sys.argv[1]) as writer:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        measurement = make_measurement(number)
        writer.append(measurement)
        print(measurement.id, flush=True)
"""
TORN = """
import os, signal, sys
from memplan.evidence import records
write = os.write
def half(fd, data):
    write(fd, bytes(data)[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
records.os.write = half
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def told(path: Path) -> tuple[list[Measurement], list[str]]:
    lines: list[str] = []
    return read(path, tell=lines.append), lines


def test_what_is_appended_is_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    several = [make_measurement(n, seq_len=8 << n) for n in range(3)]
    for measurement in several:
        append(path, measurement)
    assert read(path) == several
    assert [json.loads(line)["schema"] for line in path.read_text().splitlines()] == [
        "memplan.measurement/1"
    ] * 3


def test_key_is_that_of_the_workload_and_id_that_of_the_run() -> None:
    first, second, other = make_measurement(0), make_measurement(1), make_measurement(0, rank=8)
    assert first.key == second.key == other.key  # rank 8 is the default
    assert first.id != second.id
    assert first.key != make_measurement(0, seq_len=64).key


def test_keys_that_a_later_version_adds_at_their_default_change_no_key() -> None:
    workload = make_measurement().workload
    old = {k: v for k, v in workload.items() if k != "keep_outputs"}
    assert records.workload_key(old, "cuda") == records.workload_key(workload, "cuda")
    assert records.workload_key(old, "cuda") != records.workload_key(old, "virtual")


def test_a_rank_is_in_the_line_and_one_device_s_line_is_as_it_was() -> None:
    one = make_measurement()
    assert not {"rank", "world_size"} & one.to_mapping().keys()
    rank = replace(one, rank=1, world_size=2)
    assert Measurement.from_mapping(json.loads(to_line(rank))) == rank
    for off in ({"rank": 2}, {"rank": -1}, {"rank": "1"}, {"world_size": True}):
        with pytest.raises(ConfigError, match="there is no such rank"):
            Measurement.from_mapping({**rank.to_mapping(), **off})


def test_ranks_that_end_at_one_time_have_two_ids() -> None:
    of = records.measurement_id
    assert len({of({}, "cuda", "now", rank) for rank in range(3)}) == 3
    assert of({}, "cuda", "now", 0) == of({}, "cuda", "now")


def test_unfinished_last_line_is_dropped_with_a_warning_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append(path, make_measurement(0))
    data = path.read_bytes()
    path.write_bytes(data + data[:100])
    with pytest.warns(UserWarning, match=r"m\.jsonl:2: an unfinished line"):
        assert read(path) == [make_measurement(0)]
    assert path.read_bytes() == data + data[:100]


def test_append_goes_on_behind_an_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append(path, make_measurement(0))
    torn = path.read_bytes() + b'{"schema": "memplan.meas'
    path.write_bytes(torn)
    append(path, make_measurement(1))
    measurements, lines = told(path)
    assert measurements == [make_measurement(0), make_measurement(1)]
    assert len(lines) == 1
    assert path.read_bytes().startswith(torn + UNFINISHED + b"\n")


def test_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(to_line(make_measurement(0)))
    assert read(path) == [make_measurement(0)]
    append(path, make_measurement(1))
    assert told(path) == ([make_measurement(0), make_measurement(1)], [])


GOOD = to_line(make_measurement())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "no measurement can be read"),
        ("[]", "expected a measurement with schema memplan.measurement/1"),
        ('"text"', "expected a measurement"),
        ('{"schema": "memplan.measurement/2"}', "written by a newer memplan"),
        ('{"schema": "memplan.estimate/1"}', "expected a measurement"),
        ('{"schema": "memplan.measurement/1"}', "id is missing"),
        (GOOD.replace('"label":"virtual"', '"label":"guess"'), "label: expected cuda or virtual"),
        (GOOD.replace("memplan.recording/1", "memplan.recording/9"), "memplan.recording/9"),
        (GOOD.replace('"step":1', '"stop":1'), "cannot be read"),
        (GOOD.replace('"step":1', '"step":NaN'), "NaN is no number"),
        ("[" * 100_000, "nested too deep"),
        ("\x00\xff", "no measurement can be read"),
    ],
)
def test_corrupt_line_is_an_error_that_names_it_and_changes_nothing(
    line: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.jsonl"
    data = f"{GOOD}\n{line}\n{GOOD}\n".encode("latin-1")
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"m\.jsonl:2: ") as error:
        read(path)
    assert reason in str(error.value)
    assert path.read_bytes() == data


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl", tmp_path / "a\0b"):
        with pytest.raises(ConfigError):
            read(path)


def test_file_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "nowhere" / "m.jsonl")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, link, fifo, tmp_path / "no" / "m.jsonl", "a\0b", "/proc/version"):
        with pytest.raises(MemplanError) as error:
            Writer(path)
        assert error.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for root")
def test_read_only_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.touch(0o444)
    with pytest.raises(MemplanError, match="Permission denied"):
        Writer(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_dev_full_is_refused() -> None:
    with pytest.raises(MemplanError, match="/dev/full"):
        append("/dev/full", make_measurement())


def test_full_disk_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROOM_BYTES", 1 << 80)
    with pytest.raises(MemplanError, match="the disk is full"):
        Writer(tmp_path / "m.jsonl")


def test_disk_that_fills_during_a_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.jsonl"
    append(path, make_measurement(0))
    data = path.read_bytes()
    real, calls = os.write, []

    def fills(fd: int, block: Any) -> int:
        calls.append(len(block))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(block)[:50])

    with Writer(path) as writer:
        monkeypatch.setattr(os, "write", fills)
        with pytest.raises(MemplanError, match="No space left on device"):
            writer.append(make_measurement(1))
        monkeypatch.undo()
        assert path.read_bytes() == data
        writer.append(make_measurement(2))
    assert read(path) == [make_measurement(0), make_measurement(2)]


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "m.jsonl", os.write
    with Writer(path) as writer:
        monkeypatch.setattr(os, "write", lambda fd, block: real(fd, bytes(block)[:7]))
        writer.append(make_measurement(0))
        monkeypatch.undo()
    assert read(path) == [make_measurement(0)]


def test_killed_in_the_middle_of_a_write_loses_no_finished_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append(path, make_measurement(0))
    process = start(TORN + WRITER, path, 1, 2)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n")
    append(path, make_measurement(2))
    measurements, lines = told(path)
    assert measurements == [make_measurement(0), make_measurement(2)]
    assert len(lines) == 1


def test_killed_at_any_time_loses_no_finished_line(tmp_path: Path) -> None:
    path, done = tmp_path / "m.jsonl", []
    for number in range(3):
        process = start(WRITER, path, number * 10_000, (number + 1) * 10_000)
        assert process.stdout is not None
        done.append(process.stdout.readline().strip())
        time.sleep(random.Random(number).random() / 10)
        process.kill()
        done += process.communicate()[0].split()
    finished = {m.id for m in told(path)[0]}
    assert {name for name in done if len(name) == 16} <= finished


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    both = [start(WRITER, path, first, first + 60) for first in (0, 1000)]
    ids = [name for process in both for name in process.communicate()[0].split()]
    measurements, lines = told(path)
    assert sorted(m.id for m in measurements) == sorted(ids)
    assert (len(ids), lines) == (120, [])
