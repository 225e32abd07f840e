"""What a Python that has torch is started with, so that torch sees a device of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memplan.errors import ConfigError
from memplan.evidence.virtual.build import COMPLETE
from memplan.evidence.virtual.environment import Environment
from memplan.hardware import Device

MAX_DEVICES = 16
# Source: NVIDIA CUDA C++ Programming Guide 12.9, compute capabilities, table "Technical
# specifications": maximum number of resident blocks per SM.
BLOCKS_PER_SM = {
    (7, 0): 32,
    (7, 5): 16,
    (8, 0): 32,
    (8, 6): 16,
    (8, 9): 24,
    (9, 0): 32,
    (12, 0): 24,
}


def environment_variables(
    env: Environment,
    device: Device,
    *,
    devices: int = 1,
    padding: bool = False,
    notes: Path | None = None,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Variables to add to those of a child, whose torch then sees ``devices`` of ``device``.

    Args:
        env: The Python and the libraries, as ``environment.require`` gives them.
        device: Its numbers; a capacity is needed.
        devices: How many of it the machine has, 1 to 16.
        padding: Answer "no" to whether a mask is all ones, as a batch with padding does.
        notes: File that limits are appended to when the program meets them.
        inherited: The variables that are added to; its library path is kept behind ours.

    Raises:
        ConfigError: No capacity is given, or the number of devices is out of range.
    """
    if device.capacity_bytes is None:
        raise ConfigError("gpu: a virtual GPU needs a capacity: name a card, or a size as 24GiB.")
    if not 1 <= devices <= MAX_DEVICES:
        raise ConfigError(f"gpus: expected 1 to {MAX_DEVICES} virtual GPUs, got {devices}.")
    optional = {"MEMPLAN_GPU_BOOL": "0"} if padding else {}
    optional |= {"MEMPLAN_GPU_NOTES": str(notes)} if notes else {}
    return {
        **_loading(env, inherited or {}),
        **_facts(device, device.capacity_bytes),
        "MEMPLAN_GPU_DEVICES": str(devices),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(devices))),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # C++ frames are named from the libraries' own tables of symbols; the other way, a process
        # of binutils for each library, takes most of a short run, and the names are the same.
        "TORCH_SYMBOLIZE_MODE": "dladdr",
        **optional,
    }


def _loading(env: Environment, inherited: Mapping[str, str]) -> dict[str, str]:
    """What makes our libraries be loaded before all others.

    Their path alone is not enough: the path inside of torch's own libraries is searched first, and
    leads to NVIDIA's where those are installed.
    """
    names = (env.libraries / COMPLETE).read_text(encoding="utf-8").split()
    paths = [str(env.libraries), inherited.get("LD_LIBRARY_PATH", "")]
    return {
        "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
        "LD_PRELOAD": ":".join(names),
        "TRITON_LIBCUDA_PATH": str(env.libraries),
    }


def _facts(device: Device, capacity_bytes: int) -> dict[str, str]:
    major, minor = device.compute_capability
    return {
        "MEMPLAN_GPU_NAME": device.title,
        "MEMPLAN_GPU_CAPABILITY": f"{major}.{minor}",
        "MEMPLAN_GPU_SM_COUNT": str(device.sm_count),
        "MEMPLAN_GPU_THREADS_PER_SM": str(device.threads_per_sm),
        "MEMPLAN_GPU_BLOCKS_PER_SM": str(BLOCKS_PER_SM.get(device.compute_capability, 16)),
        "MEMPLAN_GPU_SHARED_BYTES": str(device.shared_memory_per_block),
        "MEMPLAN_GPU_L2_BYTES": str(device.l2_cache_bytes),
        "MEMPLAN_GPU_TOTAL_BYTES": str(capacity_bytes),
        "MEMPLAN_GPU_CONTEXT_BYTES": str(device.context_bytes),
    }
