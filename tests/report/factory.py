"""An estimate with fixed numbers, so that reports are tested without the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memplan.results import (
    Estimate,
    Evidence,
    GpuFit,
    Parameters,
    PeakDetail,
    PeakMoment,
    PhaseMemory,
)

GIB = 1 << 30
PEAK = PeakMoment(step=2, phase="backward", module="lm_head", op="linear_backward")
WORKLOAD: dict[str, Any] = {
    "model": "llama-2-7b",
    "library": "transformers",
    "loop": "plain",
    "dtype": "bfloat16",
    "autocast": "none",
    "method": "lora",
    "rank": 8,
    "quantization": "none",
    "optimizer": "adamw_fused",
    "micro_batch_size": 1,
    "seq_len": 2048,
    "activation_checkpointing": False,
    "target_modules": ("q_proj", "v_proj"),
    "gpu": None,
}
BREAKDOWN = {
    "weights": 12 * GIB,
    "adapters": GIB // 64,
    "gradients": GIB // 64,
    "optimizer_states": GIB // 32,
    "activations": 6 * GIB,
    "temporaries": GIB // 4,
    "workspaces": GIB // 128,
    "inputs": 4096,
    "allocator_slack": 8192,
}


def phase(peak: int, after: int) -> PhaseMemory:
    return PhaseMemory(
        peak_requested_bytes=peak - 1024,
        peak_allocated_bytes=peak,
        peak_reserved_bytes=peak + GIB // 4,
        requested_bytes=after,
        allocated_bytes=after,
        reserved_bytes=peak + GIB // 4,
    )


def make_gpu(*, fits: bool = True) -> GpuFit:
    return GpuFit(
        name="a10g",
        capacity_bytes=23_836_033_024,
        context_bytes=450 << 20,
        fits=fits,
        headroom_bytes=GIB if fits else -GIB,
        out_of_memory=None if fits else PEAK,
    )


def make_estimate(**changes: Any) -> Estimate:
    peak = sum(BREAKDOWN.values())
    estimate = Estimate(
        workload=WORKLOAD,
        assumed=("seq_len", "optimizer", "target_modules", "gpu"),
        peak_requested_bytes=peak - 8192,
        peak_allocated_bytes=peak,
        peak_reserved_bytes=peak + GIB // 4,
        device_bytes=peak + GIB // 4 + (450 << 20),
        phases={
            "load": phase(12 * GIB, 12 * GIB),
            "forward": phase(18 * GIB, 18 * GIB),
            "backward": phase(peak, 12 * GIB + GIB // 16),
            "optimizer_step": phase(12 * GIB + GIB // 16, 12 * GIB + GIB // 16),
            "zero_grad": phase(12 * GIB + GIB // 16, 12 * GIB + GIB // 32),
        },
        parameters=Parameters(total=6_742_609_920, trainable=4_194_304),
        checkpoint_bytes=16_777_216,
        gpu=None,
        evidence=Evidence(level="exact", notes=("op table and allocator held against torch",)),
        detail=lambda: PeakDetail(PEAK, BREAKDOWN),
        warnings=("rank 8 is only a test",),
    )
    return replace(estimate, **changes)
