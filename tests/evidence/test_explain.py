from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.evidence.explain import Explanation, _Device, explain, explain_snapshot
from memplan.evidence.lifetimes import categorise, read_history
from memplan.evidence.snapshot import Snapshot, checked_snapshot, read_snapshot

FOLDER = Path(__file__).parent / "snapshots"  # recorded on the virtual GPU: record_snapshots.py
TOLD: dict[str, dict[str, int]] = json.loads((FOLDER / "snapshots.json").read_text("utf-8"))
COMPLETE = [name for name in TOLD if name not in ("lora-ring", "no-history")]
WEIGHTS_BYTES = 279_232  # 139,584 parameters in bfloat16 and 16 float32 inverse frequencies
WORKSPACE_BYTES = 32 << 20  # cuBLAS, one for each thread


def explained(name: str) -> Explanation:
    return explain_snapshot(FOLDER / f"{name}.pickle.gz")


@pytest.mark.parametrize("name", COMPLETE)
def test_peaks_are_those_of_torchs_own_counters(name: str) -> None:
    moment, told = explained(name).moment, TOLD[name]
    assert moment.at == "peak"
    assert moment.requested_bytes == told["requested_bytes.peak"]
    assert moment.allocated_bytes == told["allocated_bytes.peak"]
    assert moment.reserved_bytes == told["reserved_bytes.peak"]


@pytest.mark.parametrize("name", TOLD)
def test_totals_at_the_end_are_those_of_torchs_own_counters(name: str) -> None:
    totals, told = explained(name).totals, TOLD[name]
    assert totals.requested_bytes == told["requested_bytes.current"]
    assert totals.allocated_bytes == told["allocated_bytes.current"]
    assert totals.reserved_bytes == told["reserved_bytes.current"]
    assert totals.inactive_bytes == totals.reserved_bytes - totals.allocated_bytes
    assert totals.largest_free_bytes <= totals.inactive_bytes


@pytest.mark.parametrize("name", TOLD)
def test_every_table_adds_up(name: str) -> None:
    e = explained(name)
    assert sum(e.breakdown.values()) == e.moment.allocated_bytes
    for groups in (e.lines, e.ops):
        assert sum(g.nbytes for g in groups) == e.moment.requested_bytes


@pytest.mark.parametrize("name", ["lora-all", "lora-python"])
def test_kinds_of_stacks_give_the_same_categories(name: str) -> None:
    b = explained(name).breakdown
    assert b["weights"] == WEIGHTS_BYTES
    assert b["adapters"] == 2 * 2 * (64 * 4 + 4 * 64 + 64 * 4 + 4 * 32) * 4 // 2
    assert b["optimizer_states"] == 2 * b["adapters"]
    assert b["workspaces"] == 2 * WORKSPACE_BYTES
    assert b["inputs"] == 2 * 64 * 8
    assert (b["gradients"], b["unknown"]) == (0, 0)
    assert b == explained("lora-all").breakdown


def test_full_fine_tuning_has_two_states_for_each_parameter_and_a_step_count() -> None:
    b = explained("full-python").breakdown
    assert b["optimizer_states"] == 2 * (WEIGHTS_BYTES - 64)
    assert b["weights"] == WEIGHTS_BYTES


def gradients_bytes(snapshot: Snapshot, marks: Iterable[tuple[int, str]]) -> int:
    history = read_history(snapshot.traces[0], ())
    categorise(history, marks)
    return sum(life.nbytes for life in history.lives if life.category == "gradients")


@pytest.mark.parametrize("name", ["full-sgd", "full-python"])
def test_gradients_of_every_step_are_found(name: str) -> None:
    snapshot = read_snapshot(FOLDER / f"{name}.pickle.gz")
    marks = list(_Device(snapshot, 0)._marks())
    assert len(marks) == 3
    assert gradients_bytes(snapshot, marks) == 3 * (WEIGHTS_BYTES - 64)


@pytest.mark.parametrize("name", ["full-sgd", "full-python"])
def test_gradients_are_nearly_found_without_marks_of_optimizer_steps(name: str) -> None:
    snapshot = read_snapshot(FOLDER / f"{name}.pickle.gz")
    activation = 2 * 64 * 64 * 2  # the last one's gradient has the size of a parameter
    assert 0 <= gradients_bytes(snapshot, ()) - 3 * (WEIGHTS_BYTES - 64) <= 3 * activation


def test_checkpointing_holds_less_activations() -> None:
    plain, saved = explained("lora-python"), explained("checkpointing")
    assert 0 < saved.breakdown["activations"] < plain.breakdown["activations"] / 2


def test_operators_of_the_backward_need_cpp_stacks() -> None:
    assert "LogSoftmaxBackward0" in {g.name for g in explained("lora-all").ops}
    assert any("only Python's stacks" in note for note in explained("lora-python").notes)


def test_lines_name_file_number_and_function() -> None:
    names = {g.name for g in explained("lora-python").lines}
    assert "nn/functional.py:3561 cross_entropy" in names


def test_what_is_older_than_the_history_is_counted_and_said() -> None:
    e = explained("lora-late")
    whole = explained("lora-python").breakdown
    assert e.breakdown["unknown"] == whole["weights"] + whole["adapters"]
    assert any("begins in the middle" in note and "31 blocks" in note for note in e.notes)
    assert "(before the recording began)" in {g.name for g in e.lines}


def test_an_overflowed_history_says_that_earlier_peaks_are_not_seen() -> None:
    e = explained("lora-ring")
    assert e.events == 500
    assert any("max_entries" in note and "earlier peak is not seen" in note for note in e.notes)


def test_without_a_history_the_end_is_explained() -> None:
    e = explained("no-history")
    assert (e.moment.at, e.events) == ("end", 0)
    assert e.breakdown["unknown"] == e.moment.allocated_bytes
    assert any("no history was recorded" in note for note in e.notes)


def test_a_failed_request_is_reported_with_what_stood() -> None:
    (failed,) = explained("out-of-memory").out_of_memory
    assert failed.requested_bytes == 2_000_000 * 64 * 64 * 4  # RMSNorm's float32 copy
    assert failed.line == "llama/modeling_llama.py:66 forward"
    assert failed.live_bytes > 40 << 30
    assert failed.device_free_bytes < failed.requested_bytes


def test_what_stood_in_a_forward_that_failed_is_activations() -> None:
    assert explained("out-of-memory").breakdown["activations"] > 40 << 30


def made(events: list[dict[str, Any]], blocks: list[dict[str, Any]] | None = None) -> Explanation:
    segment = {"address": 0, "total_size": 2 << 20, "blocks": blocks or []}
    value = {"segments": [segment], "device_traces": [events]}
    return explain(checked_snapshot(value, "made"))


def test_frees_of_unknown_blocks_are_blocks_from_before() -> None:
    e = made(
        [
            {"action": "alloc", "addr": 4096, "size": 1000},
            {"action": "free_completed", "addr": 0, "size": 3000},
            {"action": "alloc", "addr": 0, "size": 500},
        ],
        [{"address": 0, "size": 512, "requested_size": 500, "state": "active_allocated"},
         {"address": 4096, "size": 1024, "requested_size": 1000, "state": "active_allocated"}],
    )  # fmt: skip
    assert e.moment.requested_bytes == 4000
    assert any("1 blocks of 3,000 bytes are older" in note for note in e.notes)


def test_a_history_that_only_frees_begins_at_its_peak() -> None:
    e = made(
        [
            {"action": "free_completed", "addr": 0, "size": 3000},
            {"action": "alloc", "addr": 0, "size": 10},
            {"action": "free_completed", "addr": 0, "size": 10},
        ]
    )
    assert (e.moment.event, e.moment.requested_bytes) == (-1, 3000)


def test_metadata_is_shown_as_the_module() -> None:
    e = made([{"action": "alloc", "addr": 0, "size": 7, "user_metadata": "memplan:module:lm_head"}])
    assert [(g.name, g.nbytes) for g in e.modules] == [("lm_head", 7)]


def test_a_block_that_waits_for_a_stream_is_not_allocated() -> None:
    e = made(
        [{"action": "alloc", "addr": 0, "size": 512},
         {"action": "free_requested", "addr": 0, "size": 512}],
        [{"address": 0, "size": 512, "state": "active_pending_free"}],
    )  # fmt: skip
    assert (e.totals.allocated_bytes, e.totals.pending_bytes) == (0, 512)
    assert e.moment.requested_bytes == 512


def test_devices_are_explained_one_at_a_time() -> None:
    one = {"address": 0, "total_size": 2 << 20, "blocks": []}
    two = {**one, "device": 1, "total_size": 4 << 20}
    snapshot = checked_snapshot({"segments": [one, two], "device_traces": [[], []]}, "s")
    assert explain(snapshot).device == 1
    assert explain(snapshot, device=0).totals.reserved_bytes == 2 << 20
    with pytest.raises(ConfigError, match="device 2: not in s; its devices: 0, 1"):
        explain(snapshot, device=2)


def test_an_empty_snapshot_is_explained() -> None:
    e = explain(checked_snapshot({"segments": [], "device_traces": []}, "s"))
    assert (e.moment.allocated_bytes, e.devices) == (0, {})
