from __future__ import annotations

import json

from memplan.report.json import estimate_mapping, render_json
from tests.report.factory import make_estimate, make_gpu

CONTRACT = {
    "schema": None,
    "workload": None,
    "assumed": None,
    "peak_requested_bytes": None,
    "peak_allocated_bytes": None,
    "peak_reserved_bytes": None,
    "device_bytes": None,
    "peak": {"step", "phase", "module", "op"},
    "breakdown_at_peak": {
        "weights",
        "adapters",
        "gradients",
        "optimizer_states",
        "activations",
        "temporaries",
        "workspaces",
        "inputs",
        "allocator_slack",
    },
    "phases": {"load", "forward", "backward", "optimizer_step", "zero_grad"},
    "parameters": {"total", "trainable", "trainable_fraction"},
    "checkpoint_bytes": None,
    "gpu": {"name", "capacity_bytes", "fits", "headroom_bytes"},
    "evidence": {"level", "notes"},
}


def test_json_has_every_key_of_the_contract() -> None:
    found = json.loads(render_json(estimate_mapping(make_estimate(gpu=make_gpu()))))
    assert set(CONTRACT) <= set(found)
    for key, inner in CONTRACT.items():
        if inner is not None:
            assert inner <= set(found[key]), key
    assert found["schema"] == "memplan.estimate/1"


def test_json_round_trip_changes_nothing() -> None:
    mapping = estimate_mapping(make_estimate(gpu=make_gpu(fits=False)))
    assert json.loads(render_json(json.loads(render_json(mapping)))) == json.loads(
        render_json(mapping)
    )


def test_sizes_are_integers_and_the_breakdown_sums_to_the_peak() -> None:
    found = json.loads(render_json(estimate_mapping(make_estimate(gpu=make_gpu()))))
    sizes = [value for key, value in found.items() if key.endswith("_bytes")]
    assert all(type(size) is int for size in sizes)
    assert sum(found["breakdown_at_peak"].values()) == found["peak_allocated_bytes"]


def test_no_gpu_is_null() -> None:
    assert json.loads(render_json(estimate_mapping(make_estimate())))["gpu"] is None
