"""The Trainer's evaluation: what stays on the device from batch to batch."""

from __future__ import annotations

from typing import Any

import memplan
from tests.methods.models import MODEL, VOCABULARY
from tests.training.test_trainer import LENGTH, blocks, tape_of

ROWS = 3
LOGITS = ROWS * LENGTH * VOCABULARY
EVAL = {"eval_batches": 4, "eval_micro_batch_size": ROWS}


def made(**keys: Any) -> list[int]:
    """What the evaluation allocates, in order. [bytes]"""
    return blocks(tape_of(**{**EVAL, **keys}), "eval", -1)


def test_losses_are_joined_batch_by_batch() -> None:
    sizes = made(eval="loss")
    assert [sizes.count(ROWS * 4 * n) >= 1 for n in (1, 2, 3, 4)] == [True] * 4
    assert sizes.count(3 * LOGITS * 2) == 0


def test_logits_are_joined_as_the_model_returned_them() -> None:
    sizes = made(eval="predictions")
    joined = [n for n in (2, 3, 4) if n * LOGITS * 2 in sizes]
    assert joined == [2, 3, 4]


def test_logits_under_autocast_are_joined_in_fp32() -> None:
    sizes = made(eval="predictions", dtype="float32", autocast="bfloat16")
    assert [n for n in (2, 3, 4) if n * LOGITS * 4 in sizes] == [2, 3, 4]


def test_accumulation_steps_send_predictions_to_the_host() -> None:
    sizes = made(eval="predictions", eval_accumulation_steps=2)
    assert [n for n in (2, 3, 4) if n * LOGITS * 2 in sizes] == [2]


def test_no_dropout_and_no_graph_in_evaluation() -> None:
    drops = made(eval="loss", method="lora", dropout=0.1)
    assert drops == made(eval="loss", method="lora")


def test_phases_after_the_last_step_are_told() -> None:
    e = memplan.estimate(
        model=MODEL, loop="trainer", seq_len=64, eval="loss", eval_batches=1, save=True
    )
    assert list(e.phases)[-3:] == ["zero_grad", "eval", "save"]
    save, before = e.phases["save"], e.phases["eval"]
    assert save.peak_allocated_bytes == save.allocated_bytes == before.allocated_bytes


def test_a_peak_in_the_evaluation_is_explained() -> None:
    keys: dict[str, Any] = {"model": MODEL, "loop": "trainer", "seq_len": 64, "method": "lora"}
    keys |= {"eval": "predictions", "eval_batches": 8, "eval_micro_batch_size": 16}
    e = memplan.estimate(steps=5, **keys)
    assert (e.peak.phase, e.peak.step, e.peak.op) == ("eval", 5, "cat")
    assert sum(e.breakdown_at_peak.values()) == e.peak_allocated_bytes
    # seven batches' logits, the eighth's, and all of them joined
    assert e.breakdown_at_peak["temporaries"] >= 16 * 64 * VOCABULARY * 2 * (7 + 1 + 8)
