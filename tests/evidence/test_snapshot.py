from __future__ import annotations

import gzip
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.evidence.snapshot import MAX_FILE_BYTES, checked_snapshot, read_snapshot
from tests.evidence.test_unpickle import attacks

BLOCK = {"address": 1 << 40, "size": 512, "requested_size": 100, "state": "active_allocated"}
SEGMENT = {"address": 1 << 40, "total_size": 2 << 20, "stream": 0, "segment_type": "small"}
EVENT = {"action": "alloc", "addr": 1 << 40, "size": 100, "stream": 0, "frames": []}


def snapshot(**changes: Any) -> dict[str, Any]:
    free = {"address": (1 << 40) + 512, "size": (2 << 20) - 512, "state": "inactive"}
    segment = {**SEGMENT, "blocks": [BLOCK, free]}
    return {"segments": [segment], "device_traces": [[EVENT]], **changes}


def written(folder: Path, value: Any, *, name: str = "s.pickle") -> Path:
    path = folder / name
    data = value if isinstance(value, bytes) else pickle.dumps(value)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["s.pickle", "s.pickle.gz", "packed-under-any-name.gz"])
def test_plain_and_packed_files_hold_the_same(name: str, tmp_path: Path) -> None:
    read = read_snapshot(written(tmp_path, snapshot(), name=name))
    assert [b.requested_bytes for b in read.segments[0].blocks] == [100, 0]
    assert read.traces[0][0]["action"] == "alloc"


def test_blocks_without_addresses_follow_each_other() -> None:
    blocks = [{"size": 512, "state": "active_allocated"}, {"size": 1024, "state": "inactive"}]
    read = checked_snapshot({"segments": [{**SEGMENT, "blocks": blocks}]}, "s")
    assert [b.address - (1 << 40) for b in read.segments[0].blocks] == [0, 512]
    assert read.segments[0].blocks[0].requested_bytes == 512


@pytest.mark.parametrize("name", ["s.pickle", "s.pickle.gz"])
@pytest.mark.parametrize("attack", attacks(Path("x")))
def test_a_malicious_file_does_nothing(attack: str, name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = written(tmp_path, attacks(marker)[attack], name=name)
    with pytest.raises(ConfigError, match=re.escape(name)):
        read_snapshot(path)
    assert not marker.exists()


def test_a_file_of_ten_gigabytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.pickle"
    with path.open("wb") as file:
        file.truncate(10 * 10**9)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("was opened"))
    with pytest.raises(ConfigError, match=r"10,000,000,000 bytes; snapshots of up to 2 GiB"):
        read_snapshot(path)


@pytest.mark.parametrize("unit", [b"\x00", b"N0", b"\x95" + b"\x00" * 8, b"](0"])
def test_a_zip_bomb_is_refused(
    unit: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memplan.evidence.snapshot.RATIO_FROM_BYTES", 1 << 18)
    path = written(tmp_path, b"\x80\x04" + unit * ((1 << 21) // len(unit)), name="s.pickle.gz")
    assert path.stat().st_size < 1 << 14
    with pytest.raises(ConfigError, match=r"unpacks to more than|holds b'|more memory|nested"):
        read_snapshot(path)


def test_a_bomb_that_hides_in_one_long_text_is_refused(tmp_path: Path) -> None:
    data = b"\x80\x04" + (b"B" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20) + b"0") * 64
    with pytest.raises(ConfigError, match="unpacks to more than"):
        read_snapshot(written(tmp_path, data, name="s.pickle.gz"))


def test_every_broken_off_file_is_an_error(tmp_path: Path) -> None:
    whole = pickle.dumps(snapshot())
    packed = gzip.compress(whole)
    for data in (whole, packed):
        for end in range(0, len(data) - 8, 7):
            with pytest.raises(ConfigError):
                read_snapshot(written(tmp_path, data[:end]))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2], "expected a mapping, got list"),
        ({"model": 1, "epoch": 2}, "no 'segments' in it, but 'model', 'epoch'"),
        ({}, "no 'segments' in it, but nothing"),
        ({"segments": 5}, "segments: expected a list, got 5"),
        ({"segments": [5]}, r"segments\[0\]: expected a mapping, got 5"),
        ({"segments": [{}]}, "address: expected a number, got None"),
        ({"segments": [{**SEGMENT, "total_size": -1}]}, "total_size: expected a number, got -1"),
        ({"segments": [{**SEGMENT, "total_size": 1 << 70}]}, "total_size: expected a number"),
        ({"segments": [{**SEGMENT, "total_size": True}]}, "total_size: expected a number"),
        ({"segments": [{**SEGMENT, "blocks": [{**BLOCK, "state": "odd"}]}]}, "state: expected one"),
        ({"segments": [{**SEGMENT, "total_size": 5, "blocks": [BLOCK]}]}, "larger than it is"),
        (snapshot(device_traces=[[5]]), "expected a mapping, got 5"),
        (snapshot(device_traces=[[{"action": 5}]]), "action: expected a word, got 5"),
        (snapshot(device_traces=[[{**EVENT, "size": "x"}]]), "size: expected a number, got 'x'"),
        (snapshot(device_traces=[[{**EVENT, "frames": 5}]]), "frames: expected a list"),
        (snapshot(device_traces=[[{**EVENT, "frames": [{}]}]]), "its filename and name"),
        (snapshot(device_traces=[[]] * 5000), "more than 1024 devices"),
        (snapshot(allocator_settings=[1]), "allocator_settings: expected a mapping"),
    ],
)
def test_what_is_no_snapshot_is_named(value: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        read_snapshot(written(tmp_path, value))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"PK\x03\x04xxxx", "zip file, such as torch.save"),
        (b'{"segments": []}', "is JSON"),
        (b"<html>", "is HTML"),
        (b"hello", "holds b'h' where|breaks off|is damaged"),
        (b"\x1f\x8bnonsense", "gzip cannot unpack"),
    ],
)
def test_other_files_are_told_apart(data: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        read_snapshot(written(tmp_path, data))


def test_a_missing_file_a_folder_and_a_pipe_are_errors(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, told in (
        (tmp_path / "none", "No such file"), (tmp_path, "no regular file"), (pipe, "no regular"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            read_snapshot(path)
    with pytest.raises(ConfigError, match="null"):
        read_snapshot("a\0b")


def test_a_snapshot_that_repeats_itself_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.evidence.snapshot.MAX_BLOCKS", 1000)
    monkeypatch.setattr("memplan.evidence.snapshot.MAX_EVENTS", 1000)
    segment = {**SEGMENT, "total_size": 1 << 40, "blocks": [BLOCK] * 100}
    with pytest.raises(ConfigError, match="more than 1,000 blocks"):
        checked_snapshot({"segments": [segment] * 100}, "s")
    with pytest.raises(ConfigError, match="more than 1,000 events"):
        checked_snapshot(snapshot(device_traces=[[EVENT] * 100] * 100), "s")


def test_a_snapshot_that_holds_itself_is_an_error(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="expected a mapping, got list"):
        read_snapshot(written(tmp_path, {"segments": loop}))


def test_limit_is_two_gib() -> None:
    assert MAX_FILE_BYTES == 2 * 1024**3
