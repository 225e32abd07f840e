"""What the Trainer is handed, as far as it needs no torch."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.evidence.runner import trainer
from memplan.workload import Workload


def keys(**more: Any) -> dict[str, Any]:
    return Workload.resolve(model="7b", loop="trainer", **more)[0].to_dict()


def test_the_training_set_is_one_epoch() -> None:
    w = keys(micro_batch_size=3, gradient_accumulation_steps=2, steps=4)
    assert trainer.count_training(w) == 3 * 2 * 4
    samples = trainer.Samples(w, 100, 24)
    assert len(samples) == 24
    with pytest.raises(IndexError):
        samples[24]


def test_there_is_no_run_without_an_optimizer() -> None:
    with pytest.raises(ValueError, match="always has an optimizer"):
        trainer.own_optimizer({"optimizer": "none"}, None)


def test_metrics_are_asked_for_and_there_are_none() -> None:
    assert trainer.no_metrics(object()) == {}
