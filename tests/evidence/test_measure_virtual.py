"""Ranks of DDP and FSDP2 that ``measure`` runs on the virtual GPU, beside a script of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.evidence.measure import measure
from memplan.evidence.recording import Recording
from memplan.evidence.rehearse import rehearse
from memplan.results import CATEGORIES

pytestmark = pytest.mark.virtual
SCRIPT = str(Path(__file__).with_name("spread_training.py"))
LLAMA: dict[str, Any] = {
    **{"model_type": "llama", "hidden_size": 96, "intermediate_size": 200, "vocab_size": 1000},
    **{"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2},
}
KEYS: dict[str, Any] = {
    **{"model": LLAMA, "dtype": "float32", "autocast": "bfloat16", "gpu": "l4"},
    **{"micro_batch_size": 2, "seq_len": 70},
}


def requested(recording: Recording) -> dict[tuple[str, int], int]:
    """Peaks of the training's phases; what is asked for does not depend on how it was loaded."""
    return {(p.name, p.step): p.peak_requested_bytes for p in recording.phases if p.step}


@pytest.mark.parametrize(("strategy", "size", "rank"), [("ddp", 2, 1), ("fsdp2", 8, 7)])
def test_a_rank_takes_what_it_takes_in_a_script(strategy: str, size: int, rank: int) -> None:
    keys = KEYS | {"strategy": strategy, "dp_size": size}
    ours = measure(keys, label="virtual", rank=rank)
    assert (ours.rank, ours.world_size) == (rank, size)
    words = ("torchrun", "--nproc-per-node", str(size), SCRIPT, strategy)
    (done,) = rehearse(words, gpu="l4", gpus=size, ranks=(rank,))
    assert done.recording is not None
    script = requested(done.recording)
    phases = requested(ours.recording)
    assert len(phases) == 3 * 4
    assert phases == {key: script[key] for key in phases}


def test_the_virtual_engine_runs_the_first_rank_and_says_so() -> None:
    alone = memplan.estimate(**KEYS, engine="virtual")
    e = memplan.estimate(**KEYS, strategy="fsdp2", dp_size=64)
    assert e.evidence.level == "virtual"
    assert "rank 0 of 64" in " ".join(e.evidence.notes)
    assert tuple(e.breakdown_at_peak) == CATEGORIES
    assert sum(e.breakdown_at_peak.values()) == e.peak_allocated_bytes
    assert e.parameters == alone.parameters
    assert e.checkpoint_bytes == alone.checkpoint_bytes
    shares, whole = e.breakdown_at_peak, alone.breakdown_at_peak
    assert shares["optimizer_states"] < whole["optimizer_states"] / 20
