"""Repeated layers and steps: what is written is what a full run does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from memplan.allocator.caching import Allocator
from memplan.engine.repeat import REPRESENTATIVES, Depth, NotAlike, expand
from memplan.engine.steps import Steps
from memplan.engine.tape import PhaseMark, Tape
from memplan.running import Attempt, Recording, Run
from memplan.simulation import simulate
from memplan.workload import Workload
from tests.engine.strategies import SMALL, workloads


def make_run(**keys: Any) -> Run:
    return Run.of(Workload.resolve({"model": SMALL, "seq_len": 64, **keys})[0])


def played(run: Run, depth: Depth, steps: int) -> tuple[list[int], list[PhaseMark]]:
    """The events of all layers, up to the end of the last step."""
    tape = Tape()
    attempt = Attempt(depth, steps, run.workload.gradient_accumulation_steps)
    run.play(tape, run.workload, attempt)
    stream = expand(tape, depth)
    return stream.events[: stream.phases[-1].end], stream.phases


def settled(events: list[int], phases: list[PhaseMark]) -> list[tuple[str, int]]:
    """Blocks named by their order; runs of frees, which commute in the allocator, sorted."""
    ends = {p.end for p in phases}
    names: dict[int, int] = {}
    out: list[tuple[str, int]] = []
    frees: list[tuple[str, int]] = []
    for i, e in enumerate(events):
        if i in ends or e >= 0:
            out += [*sorted(frees), *([("phase", 0)] if i in ends else [])]
            frees = []
        if e >= 0:
            names[i] = len(names)
            out.append(("alloc", e))
        else:
            frees.append(("free", names[~e]))
    return out + sorted(frees)


def representatives_or_skip(run: Run, steps: int) -> tuple[list[int], list[PhaseMark]]:
    total = run.config.num_hidden_layers
    try:
        return played(run, Depth.representative(total), steps)
    except NotAlike as reason:
        pytest.fail(f"every one of these workloads repeats: {reason}")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_five_layers_write_the_events_of_all(keys: dict[str, Any]) -> None:
    run = make_run(**keys)
    total = run.config.num_hidden_layers
    steps = min(2, run.workload.steps)
    assert settled(*representatives_or_skip(run, steps)) == settled(
        *played(run, Depth.unrolled(total), steps)
    )


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_two_steps_and_micro_batches_write_the_events_of_all(keys: dict[str, Any]) -> None:
    run = make_run(**{**keys, "steps": 5})
    few = run.record()
    depth = Depth.unrolled(run.config.num_hidden_layers)
    events, phases = played(run, depth, 5)
    assert few.attempt.steps == 2
    assert few.attempt.micro_steps <= 2
    written = list(few.stream.events[: few.stream.phases[-1].end])
    marks = list(few.stream.phases)
    for step in range(few.attempt.steps, 5):
        written += few.steps.events(step)
        marks += few.steps.marks(step)
    assert settled(written, marks) == settled(events, phases)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_the_allocator_ends_with_the_same_peaks(keys: dict[str, Any]) -> None:
    run = make_run(**keys)
    fast = simulate(run.record(), Allocator())
    tape = Tape()
    depth = Depth.unrolled(run.config.num_hidden_layers)
    attempt = Attempt(depth, run.workload.steps, run.workload.gradient_accumulation_steps)
    model = run.play(tape, run.workload, attempt)
    stream = expand(tape, attempt.depth)
    whole = Recording(attempt, stream, Steps(stream, run.workload.steps), model)
    slow = simulate(whole, Allocator())
    assert fast.peak_phase.peak_allocated_bytes == slow.peak_phase.peak_allocated_bytes
    assert fast.peak_reserved_bytes == slow.peak_reserved_bytes


def test_a_model_of_few_layers_is_run_whole() -> None:
    assert Depth.representative(REPRESENTATIVES - 1) == Depth.unrolled(REPRESENTATIVES - 1)


def test_copies_of_the_template_stand_for_the_layers_left_out() -> None:
    depth = Depth.representative(32)
    assert sum(depth.copies(i) for i in range(depth.run)) == 32
    assert [depth.virtual(i) for i in range(5)] == [0, 1, 2, 3, 31]


def test_layers_that_differ_are_refused() -> None:
    tape = Tape()
    for layer, nbytes in enumerate((512, 512, 512, 1024, 512)):
        tape.enter(layer)
        tape.alloc(nbytes)
    tape.enter(-1)
    tape.end_phase("forward", 0)
    with pytest.raises(NotAlike, match="differ"):
        expand(tape, Depth(9, 5))


def test_a_layer_that_is_adapted_alone_is_not_taken_for_its_neighbours() -> None:
    run = make_run(method="lora", target_modules=r"model\.layers\.[0-4]\.self_attn\.q_proj")
    assert [a.depth.extra for a in run.attempts()] == [0, 0]
    everywhere = make_run(method="lora", target_modules=r".*\.q_proj")
    assert next(everywhere.attempts()).depth.extra == 4


def test_an_event_of_a_copy_leads_back_to_the_run() -> None:
    run = make_run(method="lora", steps=1)
    tape = Tape()
    attempt = next(run.attempts())
    run.play(tape, run.workload, attempt)
    stream = expand(tape, attempt.depth)
    for event in range(0, stream.phases[-1].end, 7):
        source, _ = stream.origin(event)
        if stream.events[event] >= 0:
            assert tape.events[source] == stream.events[event]
