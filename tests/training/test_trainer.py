"""transformers' Trainer: what it adds to a loop that a user writes."""

from __future__ import annotations

from typing import Any

import pytest

import memplan
from memplan.engine.kernels import Kernels
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import EMPTY_CACHE, Tape
from memplan.errors import ConfigError
from memplan.models.config import load_model_config
from memplan.training import train
from memplan.workload import Workload
from tests.methods.models import MODEL, VOCABULARY

BATCH, LENGTH = 2, 40


def tape_of(**keys: Any) -> Tape:
    shape = {"micro_batch_size": BATCH, "seq_len": LENGTH, "steps": 2, "loop": "trainer"}
    workload = Workload(model=MODEL, **{**shape, **keys})
    config = load_model_config(workload.model)
    with run(Tape(), Kernels()) as tape:
        layers = Depth.unrolled(config.num_hidden_layers)
        train(workload, config, layers, workload.steps)
        tape.finish()
    return tape


def blocks(tape: Tape, phase: str, step: int) -> list[int]:
    """What a phase allocates, in order. [bytes]"""
    marks = [p for p in tape.phases if p.name != EMPTY_CACHE]
    at = next(i for i, p in enumerate(marks) if p.name == phase and p.step in (step, -1))
    return [e for e in tape.events[marks[at - 1].end : marks[at].end] if e > 0]


TOKENS = BATCH * LENGTH
IDS = TOKENS * 8
TARGETS = BATCH * (LENGTH - 1)  # position 0 is never predicted
COUNTED = [TARGETS, 8, TARGETS * 8, 8]  # ne(-100), its sum, the cast before it, 0 + that


def test_the_first_batch_is_there_before_the_first_forward() -> None:
    assert blocks(tape_of(), "optimizer_init", 0) == [4, IDS, IDS, *COUNTED]


def test_all_batches_of_a_step_are_fetched_before_the_first_is_used() -> None:
    made = blocks(tape_of(gradient_accumulation_steps=3), "optimizer_init", 0)
    assert made == [4, *[IDS, IDS] * 3, *COUNTED * 3]


def test_a_padding_mask_is_part_of_the_batch() -> None:
    made = blocks(tape_of(attention_mask="padding"), "optimizer_init", 0)
    assert made[1:4] == [IDS, IDS, IDS]


def test_later_batches_belong_to_the_forward() -> None:
    assert blocks(tape_of(), "forward", 1)[:6] == [IDS, IDS, *COUNTED]


def test_the_cache_is_emptied_before_the_training() -> None:
    marks = [p.name for p in tape_of().phases]
    assert marks.index(EMPTY_CACHE) == marks.index("adapter") + 1


def test_accelerate_casts_logits_up_after_a_forward_under_autocast() -> None:
    logits = TOKENS * VOCABULARY * 4
    amp = {"dtype": "float32", "autocast": "bfloat16"}
    ours, plain = (
        blocks(tape_of(**amp, loop=loop), "forward", 1).count(logits)
        for loop in ("trainer", "plain")
    )
    assert ours == plain + 1


def test_what_a_model_in_bfloat16_returns_is_left_as_it_is() -> None:
    logits = TOKENS * VOCABULARY * 4
    ours, plain = (
        blocks(tape_of(loop=loop), "forward", 1).count(logits) for loop in ("trainer", "plain")
    )
    assert ours == plain


def test_the_norm_is_taken_without_clipping_too() -> None:
    clipped, not_clipped = (
        blocks(tape_of(max_grad_norm=norm), "optimizer_step", 1) for norm in (1.0, 0.0)
    )
    assert clipped == not_clipped


def test_the_loss_is_checked() -> None:
    # torch.isnan; abs and ==, of torch.isinf
    assert blocks(tape_of(optimizer="sgd"), "optimizer_step", 1)[:3] == [1, 4, 1]


def test_the_scaler_goes_on_after_the_optimizer_s_step() -> None:
    amp = {"dtype": "float32", "autocast": "float16", "optimizer": "adamw_fused"}
    tape = tape_of(**amp)
    names = [p.name for p in tape.phases if p.step == 1]
    assert names == ["forward", "backward", "optimizer_step", "zero_grad"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"method": "frozen"}, "always has an optimizer"),
        ({"optimizer": "none"}, "always has an optimizer"),
        ({"keep_outputs": True}, "keeps none"),
        (
            {"method": "bitfit", "quantization": "nf4", "prepare_kbit": False},
            "refuses a quantised model without adapters",
        ),
        ({"loop": "plain", "eval": "loss"}, "set loop: trainer"),
        ({"loop": "plain", "save": True}, "set loop: trainer"),
        (
            {"eval": "loss", "eval_micro_batch_size": 1 << 20, "seq_len": 1 << 10},
            "eval_micro_batch_size 1,048,576 x seq_len 1,024",
        ),
    ],
)
def test_what_the_trainer_does_not_do_is_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Workload(model=MODEL, **{"loop": "trainer", **keys})


KEYS: list[dict[str, Any]] = [
    {"method": "lora", "gradient_accumulation_steps": 4, "optimizer": "adamw_foreach"},
    {"dtype": "float32", "autocast": "float16", "activation_checkpointing": True},
    {"method": "prompt_tuning", "quantization": "nf4", "optimizer": "adamw_8bit"},
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda k: str(k)[:50])
@pytest.mark.parametrize("more", [{}, {"eval": "predictions", "eval_batches": 3, "save": True}])
def test_few_layers_and_steps_stand_for_all(keys: dict[str, Any], more: dict[str, Any]) -> None:
    model = {**MODEL, "num_hidden_layers": 8}
    workload = Workload(model=model, loop="trainer", seq_len=64, steps=6, **keys, **more)
    assert few(workload) == every(workload)


def few(workload: Workload) -> list[tuple[str, int, int, int]]:
    e = memplan.estimate(workload)
    return [
        (name, p.peak_requested_bytes, p.peak_allocated_bytes, p.peak_reserved_bytes)
        for name, p in e.phases.items()
    ]


def every(workload: Workload) -> list[tuple[str, int, int, int]]:
    """The same from every layer, step and micro batch."""
    from memplan.allocator.caching import Allocator
    from memplan.engine.steps import Steps
    from memplan.engine.tape import PhaseMark
    from memplan.running import Attempt, Recording, Run
    from memplan.simulation import simulate

    whole, tape = Run.of(workload), Tape()
    depth = Depth.unrolled(whole.config.num_hidden_layers)
    attempt = Attempt(depth, workload.steps, workload.gradient_accumulation_steps)
    model = whole.play(tape, workload, attempt)
    stream = whole.write(tape, attempt)
    s = simulate(Recording(attempt, stream, Steps(stream, workload.steps), model), Allocator())
    last: dict[str, tuple[str, int, int, int]] = {}
    for p in (*s.before, *s.steps[s.last], *s.after):
        assert isinstance(p.key, PhaseMark)
        peaks = p.peak_requested_bytes, p.peak_allocated_bytes, p.peak_reserved_bytes
        last[p.key.name] = (p.key.name, *peaks)
    return list(last.values())
