"""The interpreter's reference counts: relied on, so checked."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from memplan.engine import interpreter
from memplan.errors import MissingError


def test_this_interpreter_frees_at_once() -> None:
    assert interpreter.why_not() == ""


@pytest.fixture
def afresh() -> None:
    interpreter.require_reference_counts.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_another_implementation_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    with pytest.raises(MissingError, match=r"this is pypy.*Use CPython") as error:
        interpreter.require_reference_counts()
    assert error.value.exit_code == 3


@pytest.mark.usefixtures("afresh")
def test_a_build_without_the_gil_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(MissingError, match="without the GIL"):
        interpreter.require_reference_counts()


@pytest.mark.usefixtures("afresh")
def test_frames_that_are_kept_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "frees_at_once", lambda: False)
    with pytest.raises(MissingError, match="outlives"):
        interpreter.require_reference_counts()
