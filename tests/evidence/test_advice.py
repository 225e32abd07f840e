"""Advice names optimizers that a workload takes."""

from __future__ import annotations

from memplan.estimate import estimate
from memplan.evidence.advice import SMALLER_OPTIMIZERS, helpful_changes
from memplan.evidence.engine import why_not_run
from memplan.vocabulary import CHOICES, OPTIMIZERS_NOT_MODELLED, OPTIMIZERS_NOT_RUN
from memplan.workload import Workload

SMALL = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 1000,
}


def make(optimizer: str) -> Workload:
    return Workload(model=SMALL, optimizer=optimizer, micro_batch_size=1, seq_len=32, steps=2)


def test_every_advised_optimizer_is_modelled() -> None:
    named = {
        *SMALLER_OPTIMIZERS,
        *(name for names in SMALLER_OPTIMIZERS.values() for name in names),
    }
    assert named <= set(CHOICES["optimizer"].modelled)


def test_lion_in_8_bits_is_advised_where_it_saves() -> None:
    workload = make("lion")
    changes = [c.keys for c in helpful_changes(workload, estimate(workload))]
    assert {"optimizer": "lion_8bit"} in changes
    assert {"optimizer": "paged_lion_8bit"} in changes


def test_an_optimizer_that_no_engine_runs_is_refused_with_what_to_use_instead() -> None:
    assert set(OPTIMIZERS_NOT_RUN) <= set(OPTIMIZERS_NOT_MODELLED)
    for name in OPTIMIZERS_NOT_RUN:
        why = why_not_run(make(name))
        assert why is not None
        assert name in why
        assert "adamw_" in why.partition(name)[2]
