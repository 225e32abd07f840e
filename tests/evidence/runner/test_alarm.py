"""A rank that stops is heard of by the others; the store is a dictionary here."""

from __future__ import annotations

import os
import time

import pytest

from memplan.evidence.runner import alarm
from memplan.evidence.runner.alarm import Alarm


class Store:
    """What the store of the rendezvous does."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.counts: dict[str, int] = {}
        self.gone = False

    def set(self, key: str, value: str) -> None:
        self._ask()
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        self._ask()
        return all(key in self.values for key in keys)

    def add(self, key: str, number: int) -> int:
        self._ask()
        self.counts[key] = self.counts.get(key, 0) + number
        return self.counts[key]

    def _ask(self) -> None:
        if self.gone:
            raise RuntimeError("Broken pipe")


class LeftError(Exception):
    """In the place of the process's end."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise LeftError(code)

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(os, "_exit", leave)


def test_others_hear_who_stopped_and_leave(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store()
    first, second = Alarm(store, 0, 2), Alarm(store, 1, 2)
    assert first.heard() is None
    second.ring("is out of memory")
    with pytest.raises(LeftError, match=str(alarm.STOPPED)):
        first._look()
    assert capsys.readouterr().err == "stopped, since rank 1 is out of memory\n"
    second._look()  # who rang does not listen any more


def test_ranks_that_are_done_wait_for_each_other_or_for_one_that_stopped() -> None:
    store = Store()
    store.add(alarm.DONE_KEY, 1)
    Alarm(store, 1, 2).part()
    assert store.counts[alarm.DONE_KEY] == 2
    Alarm(store, 2, 4).ring("is out of memory")
    Alarm(store, 3, 4).part()


def test_nobody_waits_for_a_store_that_is_gone() -> None:
    store = Store()
    store.gone = True
    one = Alarm(store, 0, 2)
    one._look()
    assert one.over
    one.part()
    one.ring("is out of memory")


def test_who_waits_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "PART_SECONDS", 0.0)
    Alarm(Store(), 0, 2).part()
