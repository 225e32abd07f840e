"""Recordings and measurements with fixed numbers, so that what handles them is tested alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memplan.evidence.recording import DeviceFacts, OutOfMemory, PhaseCounters, Recording
from memplan.evidence.records import Measurement, measurement_id
from memplan.evidence.targets import Target
from memplan.workload import Workload

GIB = 1 << 30
A10G = 23_836_033_024
TARGET = Target(label="virtual", python="python", gpu="a10g", title="NVIDIA A10G")
STOP = OutOfMemory(2, "forward", "model.layers.3.mlp", "linear", 5 << 20, "CUDA out of memory.")


def counters(name: str, step: int, peak: int) -> PhaseCounters:
    return PhaseCounters(name, step, peak - 24, peak, peak + GIB, peak - 24, peak, peak + GIB)


def make_recording(**changes: Any) -> Recording:
    recording = Recording(
        device=DeviceFacts("NVIDIA A10G", (8, 6), A10G, A10G - GIB // 4),
        versions={"torch": "2.14.1", "transformers": "5.18.0"},
        phases=(counters("load", 0, 9 * GIB), counters("forward", 1, 2 * GIB)),
        total_parameters=1000,
        trainable_parameters=10,
        checkpoint_bytes=40,
    )
    return replace(recording, **changes)


def make_measurement(
    number: int = 0, *, recording: Recording | None = None, **keys: Any
) -> Measurement:
    workload = Workload(**{"model": "llama-3.2-1b", "gpu": "a10g", **keys}).to_dict()
    time = f"2026-11-25T12:00:00.{number:06}+00:00"
    return Measurement(
        id=measurement_id(workload, "virtual", time),
        time=time,
        label="virtual",
        workload=workload,
        gpu="NVIDIA A10G",
        driver=None,
        versions={"torch": "2.14.1", "transformers": "5.18.0"},
        recording=recording or make_recording(),
    )


def fake_run(
    workload: Mapping[str, Any], model_config: Mapping[str, Any], **options: Any
) -> Recording:
    """In the place of the runner: peaks that follow the length."""
    assert model_config["model_type"]
    assert options["python"] == TARGET.python
    return make_recording(phases=(counters("forward", 1, GIB + workload["seq_len"]),))
