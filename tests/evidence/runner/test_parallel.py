"""The parts of a run over several ranks that need no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from memplan.evidence.devices import RUN
from memplan.evidence.recorder.hooks import WATCHDOG_SECONDS
from memplan.evidence.runner import parallel
from memplan.evidence.runner.__main__ import join, why_stopped
from tests.evidence.measurements import STOP, make_recording


class Module:
    """What of a module is asked here."""

    def __init__(self, *inner: Module, **attributes: Any) -> None:
        self.inner = inner
        self.__dict__.update(attributes)

    def children(self) -> Iterator[Module]:
        yield from self.inner

    def modules(self) -> Iterator[Module]:
        yield self
        for child in self.inner:
            yield from child.modules()


class Layer(Module):
    """A layer that is never split."""


def test_every_strategy_that_is_run_spreads_the_model() -> None:
    assert set(parallel.STRATEGIES) == set(RUN)
    model = object()
    assert parallel.spread({"strategy": "single"}, model) is model


def test_layers_are_found_below_adapters_and_inner_ones_come_first() -> None:
    inner = Layer()
    layers = Layer(Module(inner)), Layer()
    model = Module(Module(*layers, _no_split_modules=["Layer"]))
    assert list(parallel.layers_of(model)) == [inner, *layers]
    assert not list(parallel.layers_of(Module(Module(_no_split_modules=None))))


def test_a_run_has_its_own_place_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    first = parallel.store_prefix({"seq_len": 8})
    assert first != parallel.store_prefix({"seq_len": 16})
    assert first == parallel.store_prefix({"seq_len": 8, "gpu": "a10g"})  # each rank has its card
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert first != parallel.store_prefix({"seq_len": 8})


def test_phases_of_a_rank_by_itself_end_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    class Recorder:
        def end_phase(self, name: str, step: int) -> None:
            told.append(name)

        def install_hooks(self, model: Any) -> None:
            """Not asked."""

        def end_evaluation(self) -> None:
            """Not asked."""

    monkeypatch.setattr(time, "sleep", told.append)
    marks = parallel.Group().marks(Recorder())
    marks.end_phase("load", 0)
    marks.end_phase("forward", 1)
    assert told == ["load", WATCHDOG_SECONDS, "forward"]


def test_one_device_takes_no_group_and_a_stop_is_told_in_words() -> None:
    assert join({"workload": {"strategy": "single"}}) is None
    assert why_stopped(make_recording().to_mapping()) is None
    assert why_stopped(make_recording(out_of_memory=STOP).to_mapping()) == "is out of memory"
    refused = make_recording(refused="ValueError: no")
    assert why_stopped(refused.to_mapping()) == "was refused: ValueError: no"
