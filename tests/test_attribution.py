"""What stands at the peak: a second run that does the same, and categories that add up."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings

import memplan
from memplan.engine.annotate import AnnotatedTape
from memplan.engine.tape import Tape
from memplan.results import CATEGORIES
from memplan.running import Run
from memplan.workload import Workload
from tests.engine.strategies import SMALL, workloads


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_looking_on_changes_no_event(keys: dict[str, Any]) -> None:
    run = Run.of(Workload.resolve(keys)[0])
    attempt = next(run.attempts())
    plain, annotated = Tape(), AnnotatedTape()
    run.play(plain, run.workload, attempt)
    run.play(annotated, run.workload, attempt)
    assert annotated.events == plain.events
    assert annotated.phases == plain.phases


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_categories_sum_to_the_peak(keys: dict[str, Any]) -> None:
    e = memplan.estimate(**keys)
    breakdown = e.breakdown_at_peak
    assert tuple(breakdown) == CATEGORIES
    assert sum(breakdown.values()) == e.peak_allocated_bytes
    assert min(breakdown.values()) >= 0
    assert e.peak_requested_bytes <= e.peak_allocated_bytes <= e.peak_reserved_bytes
    assert e.peak_allocated_bytes - breakdown["allocator_slack"] <= e.peak_requested_bytes


def test_full_fine_tuning_keeps_weights_gradients_and_two_states() -> None:
    e = memplan.estimate(
        model=SMALL, method="full", loop="plain", seq_len=1, optimizer="adamw_foreach"
    )
    weights = e.parameters.total * 2
    buffers = 2 * 16 * 4  # inv_freq and original_inv_freq: head_dim / 2 in float32
    assert e.peak.phase == "optimizer_step"
    assert e.breakdown_at_peak["weights"] == weights + buffers
    assert e.breakdown_at_peak["gradients"] == weights
    assert e.breakdown_at_peak["optimizer_states"] == 2 * weights


def test_the_loss_is_where_a_large_vocabulary_peaks() -> None:
    e = memplan.estimate(
        model={**SMALL, "vocab_size": 100_000}, method="lora", seq_len=512, optimizer="sgd"
    )
    assert (e.peak.phase, e.peak.op) == ("backward", "cross_entropy")
    logits = 512 * 100_000
    assert e.breakdown_at_peak["activations"] > logits * 4  # the log-probabilities in float32
    assert e.breakdown_at_peak["temporaries"] >= logits * 4  # and their gradient


def test_the_module_at_the_peak_is_of_the_full_model() -> None:
    wide = {**SMALL, "num_hidden_layers": 40, "intermediate_size": 20_000, "vocab_size": 50}
    e = memplan.estimate(model=wide, method="frozen", seq_len=512)
    assert e.peak.phase == "forward"
    assert e.peak.module.startswith("model.layers.")


def test_the_micro_batches_that_are_not_run_have_a_breakdown_too() -> None:
    keys: dict[str, Any] = {"model": SMALL, "method": "lora", "loop": "plain", "seq_len": 8}
    keys["optimizer"] = "sgd"
    few = memplan.estimate(**keys, gradient_accumulation_steps=2)
    many = memplan.estimate(**keys, gradient_accumulation_steps=5)
    assert many.breakdown_at_peak == few.breakdown_at_peak
    assert sum(many.breakdown_at_peak.values()) == many.peak_allocated_bytes


def test_what_a_node_makes_after_it_unpacked_is_no_activation() -> None:
    keys: dict[str, Any] = {"model": SMALL, "method": "lora", "loop": "plain", "steps": 1}
    keys["seq_len"] = 8
    run = Run.of(Workload.resolve({**keys, "activation_checkpointing": True})[0])
    tape, _ = run.annotate(next(run.attempts()))
    assert not [o for o in tape.origins.values() if o.op == "backward" and not o.is_backward]
