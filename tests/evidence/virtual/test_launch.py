"""What a child is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from memplan.errors import ConfigError
from memplan.evidence.virtual.build import COMPLETE
from memplan.evidence.virtual.environment import Environment
from memplan.evidence.virtual.launch import BLOCKS_PER_SM, environment_variables
from memplan.hardware import device_names, load_device


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    (tmp_path / COMPLETE).write_text("libcudart.so.13\nlibcuda.so.1\n")
    return Environment(Path("/venv/bin/python"), tmp_path, {})


def test_numbers_are_those_of_the_catalogue(env: Environment) -> None:
    device = load_device("a10g")
    variables = environment_variables(env, device)
    assert variables["MEMPLAN_GPU_NAME"] == "NVIDIA A10G"
    assert variables["MEMPLAN_GPU_CAPABILITY"] == "8.6"
    assert variables["MEMPLAN_GPU_TOTAL_BYTES"] == str(device.capacity_bytes)
    assert variables["MEMPLAN_GPU_CONTEXT_BYTES"] == str(device.context_bytes)
    assert variables["MEMPLAN_GPU_SM_COUNT"] == "80"
    assert variables["MEMPLAN_GPU_THREADS_PER_SM"] == "1536"
    assert variables["MEMPLAN_GPU_BLOCKS_PER_SM"] == "16"
    assert variables["MEMPLAN_GPU_SHARED_BYTES"] == str(99 << 10)
    assert variables["MEMPLAN_GPU_L2_BYTES"] == str(6 << 20)
    assert variables["MEMPLAN_GPU_DEVICES"] == "1"


def test_our_libraries_come_before_any_other(env: Environment) -> None:
    variables = environment_variables(
        env, load_device("a10g"), inherited={"LD_LIBRARY_PATH": "/other"}
    )
    assert variables["LD_LIBRARY_PATH"] == f"{env.libraries}:/other"
    assert variables["LD_PRELOAD"] == "libcudart.so.13:libcuda.so.1"


def test_answers_and_notes_are_set_only_when_asked_for(env: Environment, tmp_path: Path) -> None:
    device = load_device("a10g")
    plain = environment_variables(env, device)
    asked = environment_variables(env, device, padding=True, notes=tmp_path / "notes")
    assert set(asked) - set(plain) == {"MEMPLAN_GPU_BOOL", "MEMPLAN_GPU_NOTES"}
    assert asked["MEMPLAN_GPU_BOOL"] == "0"


def test_several_devices_are_all_visible(env: Environment) -> None:
    variables = environment_variables(env, load_device("a10g"), devices=3)
    assert variables["MEMPLAN_GPU_DEVICES"] == "3"
    assert variables["CUDA_VISIBLE_DEVICES"] == "0,1,2"


@pytest.mark.parametrize("devices", [0, 17, -1])
def test_a_number_of_devices_out_of_range_is_refused(env: Environment, devices: int) -> None:
    with pytest.raises(ConfigError, match="1 to 16"):
        environment_variables(env, load_device("a10g"), devices=devices)


def test_a_device_without_capacity_is_refused(env: Environment) -> None:
    with pytest.raises(ConfigError, match="needs a capacity"):
        environment_variables(env, load_device(None))


def test_every_card_has_its_number_of_blocks() -> None:
    for name in device_names():
        assert load_device(name).compute_capability in BLOCKS_PER_SM
