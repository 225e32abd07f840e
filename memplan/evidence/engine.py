"""The virtual engine: the workload itself, run by its libraries on the virtual GPU.

It takes whatever the libraries take, and answers with the same `Estimate` as the byte engine. On a
card that it does not fit, it is run a second time on one that never fills: what it would need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memplan.errors import ConfigError, UnsupportedError
from memplan.evidence.devices import rank_alone
from memplan.evidence.recording import PhaseCounters, Recording
from memplan.evidence.runner import launch
from memplan.hardware import Device, load_device
from memplan.method_table import ROWS
from memplan.models.config import RawConfig, load_raw_config
from memplan.results import (
    Deferred,
    Estimate,
    Evidence,
    GpuFit,
    Parameters,
    PeakDetail,
    PeakMoment,
    PhaseMemory,
)
from memplan.vocabulary import OPTIMIZERS_NOT_RUN
from memplan.workload import Workload

ENDLESS_BYTES = 16 << 40
"""Memory of a card that no run fills; below the address space that the virtual GPU sets aside."""
# Quantisations that the runner makes no model of, and why.
QUANTIZATION_NOT_RUN = {
    **dict.fromkeys(
        ("gptq-4bit", "awq-4bit"),
        "it loads a checkpoint that was quantised before, which is not made here; nf4 and "
        "hqq-4bit quantise on loading",
    ),
    "int4-torchao": "torchao packs it with mslk, which is not here; use int8-torchao, or nf4",
}
# What the runner does not do: it is refused here, and not run as if it were something else.
NOT_RUN: dict[str, tuple[str, ...]] = {
    "library": ("litgpt", "torchtune"),
    "loss": ("chunked",),
    "method": tuple(row.name for row in ROWS if not (row.modelled or row.of_peft)),
    "strategy": ("zero1", "zero2", "zero3"),
    "offload": ("optimizer", "params"),
    "attention": ("flash_attention_2",),
}


@dataclass(frozen=True, slots=True)
class VirtualRun:
    """A workload with what is needed to run it.

    Attributes:
        workload: What is to be run.
        model: Its model's configuration.
        device: The card; without a capacity, of the default's kernels.
    """

    workload: Workload
    model: RawConfig
    device: Device

    @classmethod
    def of(cls, workload: Workload) -> VirtualRun:
        """Load what the workload names, and refuse what cannot be run."""
        why = why_not_run(workload)
        if why is not None:
            raise UnsupportedError(why)
        model = load_raw_config(workload.model)
        if not isinstance(model.keys.get("model_type"), str):
            raise ConfigError(f"{model.where}: model_type: not given; transformers goes by it.")
        return cls(workload, model, load_device(workload.gpu))

    def resolved(self) -> dict[str, Any]:
        """The workload's keys; an alias of a model written out."""
        keys = self.workload.to_dict()
        return keys if isinstance(self.workload.model, Mapping) else keys | {"model": self.name}

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.model.name or str(self.model.keys["model_type"])

    def record(self, capacity_bytes: int) -> Recording:
        """Run it on the virtual GPU, with this much memory.

        Raises:
            ConfigError: A library refuses the run.
            MissingError: The virtual GPU is not set up.
        """
        from memplan.evidence.virtual.adapters import environment_for
        from memplan.evidence.virtual.environment import require
        from memplan.evidence.virtual.launch import environment_variables

        environment = environment_for(self.workload.method, require())
        device = replace(self.device, capacity_bytes=capacity_bytes)
        with TemporaryDirectory(prefix="memplan-notes-") as folder:
            limits = Path(folder, "limits")
            variables = environment_variables(
                environment,
                device,
                padding=self.workload.attention_mask == "padding",
                notes=limits,
                inherited=os.environ,
            )
            recording = launch.run(
                self.resolved(),
                self.model.keys,
                python=environment.python,
                environment=variables | rank_variables(self.workload),
                alone=self.workload.dp_size > 1,
            )
            recording = replace(recording, notes=(*recording.notes, *read_limits(limits)))
        if recording.refused is not None:
            raise ConfigError(f"the libraries refuse this run: {recording.refused}")
        return recording


def rank_variables(workload: Workload) -> dict[str, str]:
    """The environment of the rank that is run, if there are several: the first."""
    return rank_alone(0, workload.dp_size) if workload.dp_size > 1 else {}


def read_limits(path: Path) -> tuple[str, ...]:
    """Where the run met a limit of the virtual GPU: a line each, each once."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def why_not_run(workload: Workload) -> str | None:
    """What the virtual engine does not run of a workload; none if it runs it all."""
    if workload.optimizer in OPTIMIZERS_NOT_RUN:
        why = OPTIMIZERS_NOT_RUN[workload.optimizer]
        return f"optimizer: {workload.optimizer}: no engine runs it: {why}."
    if workload.quantization in QUANTIZATION_NOT_RUN:
        why = QUANTIZATION_NOT_RUN[workload.quantization]
        return f"quantization: {workload.quantization}: no engine runs it: {why}."
    for key, words in NOT_RUN.items():
        value = getattr(workload, key)
        if value in words:
            return f"{key}: {value!r}: neither the byte engine nor the virtual one runs it yet."
    if workload.strategy != "single" and workload.loop == "trainer":
        return f"strategy: {workload.strategy}: runs in the plain loop, and not yet in the Trainer."
    return _needs_cudnn(workload)


def _needs_cudnn(workload: Workload) -> str | None:
    """Whose memory cuDNN decides, in a library that the virtual GPU has not."""
    kind = workload.peft_config.get("encoder_reparameterization_type")
    if workload.method == "p_tuning" and kind == "LSTM":
        return (
            "peft_config: encoder_reparameterization_type: 'LSTM' runs on cuDNN, which alone knows "
            "what it reserves; neither engine has it. 'MLP' is modelled."
        )
    return None


def estimate_virtual(workload: Workload, assumed: tuple[str, ...] = ()) -> Estimate:
    """The peak GPU memory of a workload, by running it on the virtual GPU.

    Args:
        workload: What is to be run.
        assumed: Keys that were not given.

    Raises:
        ConfigError: A library refuses the run.
        MissingError: The virtual GPU is not set up.
        UnsupportedError: The runner does not do what the workload asks for.
    """
    run = VirtualRun.of(workload)
    recording, stop = on_card(run)
    return Estimate(
        workload=run.resolved(),
        assumed=assumed,
        peak_requested_bytes=recording.peak_requested_bytes,
        peak_allocated_bytes=recording.peak_allocated_bytes,
        peak_reserved_bytes=recording.peak_reserved_bytes,
        device_bytes=most_reserved(recording) + run.device.context_bytes,
        phases=phases(recording),
        parameters=Parameters(recording.total_parameters, recording.trainable_parameters),
        checkpoint_bytes=recording.checkpoint_bytes,
        gpu=gpu_fit(run.device, recording, stop),
        evidence=Evidence("virtual", tuple(notes(run, recording))),
        detail=Deferred(lambda: peak_detail(recording)),
    )


def on_card(run: VirtualRun) -> tuple[Recording, PeakMoment | None]:
    """The run on its card and where it stops; where it does, the run on an endless card."""
    capacity = run.device.capacity_bytes
    recording = run.record(ENDLESS_BYTES if capacity is None else capacity)
    stop = recording.out_of_memory
    if stop is None:
        return recording, None
    endless = run.record(ENDLESS_BYTES)
    return endless, PeakMoment(stop.step, stop.phase, stop.module, stop.op)


def most_reserved(recording: Recording) -> int:
    """The most that was reserved, loading included. [bytes]"""
    return max(p.peak_reserved_bytes for p in recording.phases)


def phases(recording: Recording) -> Mapping[str, PhaseMemory]:
    """Phases before the training and of its last step, by name; of several, the last."""
    last = recording.steps
    return {p.name: _memory(p) for p in recording.phases if p.step in (0, last)}


def _memory(p: PhaseCounters) -> PhaseMemory:
    return PhaseMemory(
        p.peak_requested_bytes,
        p.peak_allocated_bytes,
        p.peak_reserved_bytes,
        p.requested_bytes,
        p.allocated_bytes,
        p.reserved_bytes,
    )


def gpu_fit(device: Device, recording: Recording, stop: PeakMoment | None) -> GpuFit | None:
    """What the card does with the run, if there is one."""
    if device.capacity_bytes is None:
        return None
    return GpuFit(
        name=device.name,
        capacity_bytes=device.capacity_bytes,
        context_bytes=device.context_bytes,
        fits=stop is None,
        headroom_bytes=device.capacity_bytes - device.context_bytes - most_reserved(recording),
        out_of_memory=stop,
    )


def peak_detail(recording: Recording) -> PeakDetail:
    """Where the peak stands and what stood there, as the run's history tells."""
    top = max(recording.training, key=lambda p: p.peak_allocated_bytes)
    moment = recording.peak or PeakMoment(top.step, top.name, "", "")
    return PeakDetail(moment, recording.breakdown_at_peak or {})


def notes(run: VirtualRun, recording: Recording) -> Iterator[str]:
    """What was run on what, and what a reader should know of it."""
    versions = ", ".join(f"{name} {version}" for name, version in recording.versions.items())
    yield f"run on the virtual GPU by {versions}; not a CUDA run"
    if run.device.assumed:
        yield f"assumed: {run.device.assumed}"
    yield from _notes_of_workload(run)
    for name, version in run.workload.versions.items():
        if not str(recording.versions.get(name, version)).startswith(version):
            yield f"versions asks for {name} {version}"
    yield from recording.notes


def _notes_of_workload(run: VirtualRun) -> Iterator[str]:
    w = run.workload
    if w.dp_size > 1:
        yield f"rank 0 of {w.dp_size}, run by itself; its share of what is split is the largest"
    if run.device.compute_capability >= (9, 0) and w.attention == "sdpa":
        yield "cuDNN's attention, which torch may prefer here, is switched off"
    if w.optimizer.startswith("paged_"):
        yield "large optimizer states are in managed memory, which no total here counts"
    if w.optimizer.startswith("galore"):
        yield f"{w.optimizer}: what cuSOLVER borrows for singular values is not counted"
    if w.method == "lora_fa":
        yield "lora_fa: PEFT's LoRA-FA optimizer, in place of the workload's"
    if w.quantization == "int8":
        yield "int8: no outlier columns in the activations; their values decide that"
    if w.quantization.startswith("hqq"):
        yield "hqq: while loading, the search for zero points turns once; values decide that"
    if run.model.keys.get("is_encoder_decoder"):
        yield "encoder and decoder both run on seq_len tokens"
    if has_experts(run.model.keys):
        yield "experts: which tokens go where depends on values, and a virtual GPU has none"


def has_experts(keys: Mapping[str, Any]) -> bool:
    """Whether a configuration speaks of experts."""
    return any("expert" in key for key in keys)
