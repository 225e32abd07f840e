"""Where the hooks see phases end, by the calls that a loop makes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from memplan.evidence.recorder.hooks import Loop


class Recorder:
    """Writes down what the hooks tell it."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int]] = []
        self.history = False

    def end_phase(self, name: str, step: int) -> None:
        self.ended.append((name, step))

    def begin(self, name: str, step: int) -> None:
        pass


class Calls:
    """What a loop does, as the hooks are told of it."""

    def __init__(self, torch: Any, **keys: Any) -> None:
        self.torch, self.recorder = torch, Recorder()
        self.loop = Loop(self.recorder, **keys)  # type: ignore[arg-type]

    def forward(self, *, grad: bool = True) -> None:
        self.torch.is_grad_enabled = lambda: grad
        self.loop.forward(True)
        self.loop.forward(False)

    def backward(self) -> None:
        self.loop.backward(lambda: None)

    def update(self, *inner: str) -> None:
        for name in ("outer", *inner):
            self.loop.before_update(name, (), {})
        for name in (*inner, "outer"):
            self.loop.after_update(name, (), {})

    def zero_grad(self) -> None:
        self.loop.zero_grad(lambda: None)

    def step(self) -> None:
        self.forward()
        self.backward()
        self.update()
        self.zero_grad()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    distributed = SimpleNamespace(is_available=lambda: False)
    torch = SimpleNamespace(is_grad_enabled=lambda: True, distributed=distributed)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return Calls(torch, first="optimizer_init")


STEP = ["forward", "backward", "optimizer_step", "zero_grad"]


def test_a_step_has_four_phases_and_what_comes_first_one(calls: Calls) -> None:
    calls.step()
    calls.step()
    ended = calls.recorder.ended
    assert ended == [("optimizer_init", 0), *((p, n) for n in (1, 2) for p in STEP)]


def test_micro_batches_are_one_step(calls: Calls) -> None:
    calls.forward()
    calls.backward()
    calls.step()
    assert [p for p, _ in calls.recorder.ended[1:]] == ["forward", "backward", *STEP]
    assert {n for _, n in calls.recorder.ended[1:]} == {1}


def test_an_evaluation_lasts_until_the_next_step(calls: Calls) -> None:
    calls.step()
    calls.forward(grad=False)
    calls.forward(grad=False)
    calls.step()
    assert calls.recorder.ended[5:] == [("eval", 1), *((p, 2) for p in STEP)]


def test_an_evaluation_is_over_when_the_loop_says_so(calls: Calls) -> None:
    calls.step()
    calls.forward(grad=False)
    calls.loop.end_evaluation()
    calls.loop.end_evaluation()
    assert calls.recorder.ended[5:] == [("eval", 1)]


def test_a_reference_model_in_a_step_is_no_evaluation_of_its_own(calls: Calls) -> None:
    calls.forward()
    calls.forward(grad=False)
    calls.backward()
    assert [p for p, _ in calls.recorder.ended[1:]] == ["other", "eval", "forward", "backward"]


def test_an_evaluation_before_the_training_ends_what_came_first(calls: Calls) -> None:
    calls.forward(grad=False)
    calls.step()
    assert [p for p, _ in calls.recorder.ended] == [
        *("optimizer_init", "eval", "optimizer_init", *STEP)
    ]


def test_an_optimizer_made_of_others_steps_once(calls: Calls) -> None:
    calls.forward()
    calls.backward()
    calls.update("one", "other")
    assert [p for p, _ in calls.recorder.ended].count("optimizer_step") == 1


def test_the_program_ends_after_the_steps_that_were_asked_for(calls: Calls) -> None:
    calls.loop.max_steps = 1
    calls.forward()
    calls.backward()
    calls.update()
    with pytest.raises(SystemExit):
        calls.zero_grad()
