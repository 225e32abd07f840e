"""Which blocks stand at a moment, and in which category, from events as torch records them."""

from __future__ import annotations

from typing import Any

from memplan.evidence.trace import BATCH_MARK, GRADIENT, MODULE, Ledger, breakdown, groups
from memplan.results import CATEGORIES
from tests.evidence.test_frames import FORWARD, MAIN, NODE, python

MIB = 1 << 20
Event = dict[str, Any]


def alloc(address: int, nbytes: int, frames: Any = FORWARD, metadata: str = "") -> Event:
    return {
        "action": "alloc", "addr": address, "size": nbytes, "frames": frames,
        "user_metadata": metadata, "stream": 0,
    }  # fmt: skip


def free(address: int) -> Event:
    return {"action": "free_completed", "addr": address, "size": 0}


def step_one() -> tuple[Ledger, Any, Any]:
    """Load 2 MiB; a forward that keeps 3 of 8 MiB; a backward that makes a gradient of 2 MiB."""
    ledger = Ledger()
    ledger.phase("load", 0, [alloc(1, 2 * MIB)]).settle()
    forward = ledger.phase(
        "forward",
        1,
        [
            alloc(2, 512, [MAIN], BATCH_MARK),
            alloc(3, 3 * MIB, metadata=MODULE + "layers.0"),
            alloc(4, 5 * MIB, metadata=MODULE + "layers.0"),
            free(4),
        ],
    )
    forward.settle()
    backward = ledger.phase(
        "backward",
        1,
        [
            alloc(5, MIB, NODE),
            alloc(6, 2 * MIB, NODE),
            free(5),
            free(3),
            {"action": "annotate", "addr": 6, "size": 0, "user_metadata": GRADIENT + "layers.0"},
        ],
    )
    backward.settle()
    return ledger, forward, backward


def test_the_peak_is_where_most_is_allocated() -> None:
    _, forward, backward = step_one()
    assert (forward.peak_event, forward.peak_bytes) == (2, 10 * MIB + 512)
    assert (backward.peak_event, backward.peak_bytes) == (1, 8 * MIB + 512)


def test_categories_at_the_peak_sum_to_what_is_allocated() -> None:
    _, forward, backward = step_one()
    at = breakdown(forward.at(forward.peak_event, forward.peak_bytes))
    assert tuple(at) == CATEGORIES
    assert {k: v for k, v in at.items() if v} == {
        "weights": 2 * MIB, "activations": 3 * MIB, "temporaries": 5 * MIB, "inputs": 512,
    }  # fmt: skip
    at = breakdown(backward.at(backward.peak_event, backward.peak_bytes))
    assert {k: v for k, v in at.items() if v} == {
        "weights": 2 * MIB, "gradients": 2 * MIB, "activations": 3 * MIB, "temporaries": MIB,
        "inputs": 512,
    }  # fmt: skip


def test_what_the_block_took_beyond_the_request_is_slack() -> None:
    ledger = Ledger()
    phase = ledger.phase("load", 0, [alloc(1, 1000)])
    phase.settle()
    assert breakdown(phase.at(phase.peak_event, phase.peak_bytes))["allocator_slack"] == 24


def test_blocks_are_told_by_module_operator_and_line() -> None:
    _, _, backward = step_one()
    found = groups(backward.at(backward.peak_event, backward.peak_bytes))
    kept = next(g for g in found if g.category == "activations")
    assert (kept.nbytes, kept.module, kept.op) == (3 * MIB, "layers.0", "linear")
    assert kept.line == "modules/linear.py:134 forward"
    assert next(g for g in found if g.category == "gradients").module == "layers.0"


def test_an_address_that_is_used_again_is_another_block() -> None:
    ledger = Ledger()
    ledger.phase("load", 0, [alloc(1, MIB), free(1), alloc(1, 2 * MIB)]).settle()
    assert [b.nbytes for b in ledger.live.values()] == [2 * MIB]


def test_a_free_of_an_unknown_block_is_counted() -> None:
    ledger = Ledger()
    ledger.phase("load", 0, [free(9)])
    assert ledger.unknown_frees == 1


def test_the_second_micro_batch_of_a_step_is_a_phase_of_its_own() -> None:
    ledger = Ledger()
    ledger.phase("forward", 1, [alloc(1, MIB), alloc(2, MIB)]).settle()
    second = ledger.phase("forward", 1, [alloc(3, MIB), free(3)])
    second.settle()
    assert breakdown(second.at(0, 3 * MIB))["activations"] == 2 * MIB


def test_adapters_and_states_made_while_loading_are_told_apart() -> None:
    ledger = Ledger()
    peft = [python("peft/tuners/lora/layer.py", "update_layer"), MAIN]
    phase = ledger.phase("load", 0, [alloc(1, MIB, peft), alloc(2, MIB)])
    phase.settle()
    at = breakdown(phase.at(phase.peak_event, phase.peak_bytes))
    assert (at["adapters"], at["weights"]) == (MIB, MIB)


def test_streams_have_pools_of_their_own() -> None:
    ledger = Ledger()
    first, second = alloc(1, 512), alloc(2, 512)
    second["stream"] = 7
    ledger.phase("load", 0, [first, second])
    assert [a.reserved for a in ledger.counter.streams.values()] == [2 * MIB // 512] * 2
