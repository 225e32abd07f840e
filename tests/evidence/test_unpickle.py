from __future__ import annotations

import contextlib
import copyreg
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.evidence.unpickle import PickleError, load_plain

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.text() | st.binary()
    | st.floats(allow_nan=False),
    lambda x: st.lists(x) | st.dictionaries(st.text() | st.integers(), x) | st.tuples(x, x),
)  # fmt: skip


@given(PLAIN, st.integers(3, 5))
def test_plain_values_come_back_as_they_were(value: Any, protocol: int) -> None:
    assert load_plain(io.BytesIO(pickle.dumps(value, protocol))) == value


@given(st.integers(0, 2))
def test_old_protocols_are_read(protocol: int) -> None:
    value = {"a": [1, -5, 2**70, 1.5, None, True, (), (1,), (1, 2, 3, 4), "ü\n"], 3: {}}
    assert load_plain(io.BytesIO(pickle.dumps(value, protocol))) == value


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_one_kind_of_error(data: bytes) -> None:
    with contextlib.suppress(PickleError):
        load_plain(io.BytesIO(b"\x80\x04" + data))


@given(st.data())
def test_a_broken_pickle_gives_a_value_or_one_kind_of_error(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"segments": [{"a": (1, 2.5, "x" * 300)}, [None, b"y"]]}))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PickleError):
        load_plain(io.BytesIO(bytes(whole)))


def test_every_shorter_file_is_refused() -> None:
    whole = pickle.dumps({"segments": [{"address": 1 << 40, "name": "x" * 300}], "n": 2.5})
    for end in range(len(whole)):
        with pytest.raises(PickleError, match="breaks off"):
            load_plain(io.BytesIO(whole[:end]))


class Payload:
    """Touches a file when a pickle of it is loaded by pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


class Stateful:
    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def attacks(marker: Path) -> dict[str, bytes]:
    command = text(f"touch {marker}")
    return {
        "reduce": pickle.dumps(Payload(marker)),
        "reduce, protocol 0": pickle.dumps(Payload(marker), 0),
        "nested": pickle.dumps({"segments": [{"blocks": [Payload(marker)]}]}),
        "os.system": b"cos\nsystem\n" + command + b"\x85R.",
        "stack_global": b"\x80\x04" + text("os") + text("system") + b"\x93" + command + b"\x85R.",
        "builtins": b"cbuiltins\neval\n" + text("1+1") + b"\x85R.",
        "inst": b"(" + command + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + command + b"o.",
        "newobj": b"\x80\x02cos\nsystem\n" + command + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cos\nsystem\n" + command + b"\x85}\x92.",
        "build": b"\x80\x04}}b.",
        "reduce of text": b"\x80\x04" + command + b")R.",
        "ext1": b"\x80\x02\x82\x01.",
        "ext2": b"\x80\x02\x83\x01\x00.",
        "ext4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persid": b"Pthing\n.",
        "binpersid": text("thing") + b"Q.",
        "buffer": b"\x80\x05\x97.",
        "object": pickle.dumps(Stateful()),
        "set": pickle.dumps({1, 2}, 4),
        "bytearray": pickle.dumps(bytearray(b"x"), 5),
        "stack_global of nothing": b"\x80\x04\x93.",
    }


@pytest.mark.parametrize("name", attacks(Path("x")))
def test_nothing_that_a_pickle_names_is_run(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(PickleError, match="nothing was run"):
        load_plain(io.BytesIO(attacks(marker)[name]))
    assert not marker.exists()


def test_attacks_would_work_on_pickle(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(attacks(marker)["nested"])
    assert marker.exists()


def test_a_registered_extension_is_not_looked_up() -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(PickleError, match="registered extension"):
            load_plain(io.BytesIO(b"\x80\x02\x82\xf0."))
    finally:
        copyreg.remove_extension("os", "system", 240)


def test_refusal_names_what_was_asked_for() -> None:
    with pytest.raises(PickleError, match=r"'posix\.system'"):
        load_plain(io.BytesIO(b"cposix\nsystem\n."))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62),
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40),
        b"\x80\x04B" + struct.pack("<I", 0xFFFFFFFF),
        b"\x80\x04X" + struct.pack("<I", 0xFFFFFFFF),
        b"\x80\x02\x8b" + struct.pack("<I", 0x7FFFFFFF),
        b"\x80\x02\x8b" + struct.pack("<i", -1),
    ],
)
def test_a_huge_length_allocates_nothing(data: bytes) -> None:
    with pytest.raises(PickleError, match="single value"):
        load_plain(io.BytesIO(data + b"."))


def test_a_huge_memo_index_allocates_nothing() -> None:
    assert load_plain(io.BytesIO(b"K\x01r\xff\xff\xff\x7f.")) == 1


def test_a_huge_frame_length_allocates_nothing() -> None:
    assert load_plain(io.BytesIO(b"\x80\x04\x95" + b"\xff" * 8 + b"K\x01.")) == 1


def test_deep_nesting_is_no_recursion() -> None:
    depth = 300_000
    value = load_plain(io.BytesIO(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."))
    assert isinstance(value, list)
    tuples = load_plain(io.BytesIO(b"\x80\x02)" + b"\x85" * depth + b"."))
    assert isinstance(tuples, tuple)


def test_a_deep_tuple_is_no_key() -> None:
    with pytest.raises(PickleError, match="as a key"):
        load_plain(io.BytesIO(b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s."))


@pytest.mark.parametrize("code", [b"]", b"}", b"(", b"K\x01"])
def test_growth_is_bounded(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.evidence.unpickle.MAX_HELD_BYTES", 1 << 20)
    monkeypatch.setattr("memplan.evidence.unpickle.MAX_STACK", 10_000)
    with pytest.raises(PickleError, match=r"more memory|nested too deep"):
        load_plain(io.BytesIO(b"\x80\x02" + code * 100_000 + b"."))


def test_repeating_one_value_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.evidence.unpickle.MAX_HELD_BYTES", 1 << 20)
    fill = b"](" + b"h\x00" * 1000 + b"e" + b"0"
    with pytest.raises(PickleError, match="more memory"):
        load_plain(io.BytesIO(b"\x80\x02]q\x00" + fill * 1000 + b"."))
