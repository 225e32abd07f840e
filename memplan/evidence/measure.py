"""One run, measured: the workload is really run, in a process of its own."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from memplan import __version__
from memplan.errors import ConfigError, MemplanError
from memplan.estimate import estimate
from memplan.evidence.devices import with_devices, world_of
from memplan.evidence.nvml import Watch, open_nvml
from memplan.evidence.recording import Recording
from memplan.evidence.records import Measurement, measurement_id
from memplan.evidence.targets import Target, find_target
from memplan.files import read_json_mapping
from memplan.models.config import config_path
from memplan.models.presets import load_preset, preset_name
from memplan.results import Estimate
from memplan.workload import Workload

MAX_BLOCKS = 32  # groups of blocks at the peak that a record keeps, the largest
OTHERS_BYTES = 64 << 20  # in use before the run: above it, somebody else is on the card


class RefusedError(MemplanError):
    """The libraries refused the run; there is nothing to record."""

    exit_code = 1


def measure(
    workload: Workload | Mapping[str, Any],
    *,
    label: str = "cuda",
    python: str | None = None,
    snapshot: Path | None = None,
    rank: int = 0,
) -> Measurement:
    """Run a workload and return what was measured.

    Args:
        workload: What is run, or its keys; ``gpu`` names the virtual card.
        label: ``cuda``: on this machine's card; ``virtual``: on the virtual GPU.
        python: The interpreter that has torch.
        snapshot: Where to leave torch's memory snapshot.
        rank: Of several virtual ranks, which one; on real cards ``torchrun`` says it.

    Raises:
        MissingError: No torch, no card, or no virtual GPU.
        MeasurementError: The run crashed.
        RefusedError: A library refused it.
    """
    keys = workload.to_dict() if isinstance(workload, Workload) else workload
    check_devices(keys, label)
    target = find_target(label, keys.get("gpu"), python=python)
    resolved = resolve(keys, target)
    ranks = target.ranks(resolved.dp_size)
    if not 0 <= rank < len(ranks):
        raise ConfigError(f"rank: {rank}: there are {len(ranks)} to run here.")
    return measure_on(ranks[rank], resolved, snapshot=snapshot)


def check_devices(keys: Mapping[str, Any], label: str) -> None:
    """Refuse what does not go with the processes that ``torchrun`` started, if it did."""
    _, size, _ = world_of(os.environ)
    with_devices(keys, size, virtual=label == "virtual")


def resolve(keys: Mapping[str, Any], target: Target) -> Workload:
    """The workload as it stands in the record: on those cards, and with no path in it."""
    of_many = with_devices(keys, target.world_size, virtual=target.is_virtual)
    own = {**of_many, "gpu": target.gpu}
    model = own.get("model")
    if isinstance(model, (str, Path)) and not _is_preset(model):
        own["model"] = read_json_mapping(config_path(str(model)))
    return replace_model(Workload.resolve(own)[0])


def _is_preset(model: str | Path) -> bool:
    return preset_name(str(model)) is not None and not Path(model).expanduser().is_dir()


def replace_model(workload: Workload) -> Workload:
    """The workload with an alias put as the preset that it means."""
    if isinstance(workload.model, Mapping):
        return workload
    return replace(workload, model=preset_name(workload.model) or workload.model)


def model_config(workload: Workload) -> dict[str, Any]:
    """The ``config.json`` of its model."""
    if isinstance(workload.model, Mapping):
        return dict(workload.model)
    return load_preset(workload.model)


def measure_on(target: Target, workload: Workload, *, snapshot: Path | None = None) -> Measurement:
    """Run one resolved workload on a target, in a fresh process."""
    from memplan.evidence.runner.launch import run

    nvml = open_nvml() if target.uuid else None
    watch = Watch(target.uuid, nvml=nvml)
    try:
        with watch:
            recording = run(
                workload.to_dict(),
                model_config(workload),
                python=target.python,
                environment=target.environment,
                snapshot=of_rank(snapshot, target),
                alone=target.runs_alone,
            )
    finally:
        if nvml is not None:
            nvml.close()
    if recording.refused is not None:
        raise RefusedError(f"the libraries refuse this run: {recording.refused}")
    return build_measurement(target, workload, with_device_use(recording, watch))


def of_rank(snapshot: Path | None, target: Target) -> Path | None:
    """Where the snapshot of a target's rank goes."""
    if snapshot is None or target.world_size == 1:
        return snapshot
    return snapshot.with_name(f"{snapshot.stem}-rank{target.rank}{snapshot.suffix}")


def with_device_use(recording: Recording, watch: Watch) -> Recording:
    """The recording with what the driver saw, and whether somebody else was on the card."""
    if watch.peak_bytes is None:
        return recording
    before = watch.before_bytes or 0
    notes = recording.notes
    if before > OTHERS_BYTES:
        notes += (f"{before:,} bytes of the card were in use before the run.",)
    return replace(recording, device_used_bytes=watch.peak_bytes, notes=notes)


def build_measurement(target: Target, workload: Workload, recording: Recording) -> Measurement:
    """The record of a run that has just ended."""
    time = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    keys = workload.to_dict()
    return Measurement(
        id=measurement_id(keys, target.label, time, target.rank),
        time=time,
        label=target.label,
        workload=keys,
        gpu=recording.device.name,
        driver=target.driver,
        versions={**recording.versions, "memplan": __version__, "system": platform.system()},
        recording=replace(recording, blocks=recording.blocks[:MAX_BLOCKS]),
        rank=target.rank,
        world_size=target.world_size,
    )


def estimate_of(workload: Workload) -> Estimate | None:
    """The fast engine's estimate, or None for what it does not know."""
    try:
        return estimate(workload)
    except ConfigError:  # the workload itself was checked before
        return None
