"""Reading mappings from files: the same values from every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.errors import ConfigError, MemplanError
from memplan.files import MAX_DEPTH, read_json_mapping, read_mapping

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("abc: -#", max_size=6),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text("abc", min_size=1), v, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("xyz", min_size=1), values, max_size=3))
def test_json_and_yaml_give_what_was_written(tmp_path: Path, mapping: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(mapping))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(mapping))
    assert read_mapping(tmp_path / "a.json") == mapping
    assert read_mapping(tmp_path / "a.yaml") == mapping


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_mapping(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(("levels", "fits"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_depth_is_bounded(levels: int, fits: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": ' * levels + "1" + "}" * levels)
    if fits:
        assert "a" in read_mapping(path)
    else:
        with pytest.raises(ConfigError, match="nested too deep"):
            read_mapping(path)


def test_a_yaml_anchor_may_be_used_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x {p: 1}\nb: {<<: *x, q: 2}\nc: *x\n")
    mapping = read_mapping(tmp_path / "a.yaml")
    assert mapping == {"a": {"p": 1}, "b": {"p": 1, "q": 2}, "c": {"p": 1}}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".json", ".yaml", ".toml"]),
    st.text(alphabet="ab01 \n\t:-,.[]{}'\"#&*!?|>%@=<_~", max_size=40) | st.text(max_size=20),
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    message = ""
    try:
        assert isinstance(read_mapping(path), dict)
    except MemplanError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["a: !!map [1, 2]", "a: !!set {b, c}", "a: !!omap [b: 1]", "!!map x", "a: 2024-13-45", "? !!x"],
)
def test_odd_yaml_tags_are_read_or_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    try:
        message = str(read_mapping(tmp_path / "a.yaml"))
    except MemplanError as error:
        message = str(error)
    assert message
