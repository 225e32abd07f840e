"""The virtual GPU itself, where it is set up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from memplan.evidence.virtual import environment, installation, selftest
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import load_device

pytestmark = pytest.mark.virtual


def run(
    gpu: str,
    program: str,
    devices: int = 1,
    padding: bool = False,
    notes: Path | None = None,
    **more: str,
) -> str:
    """Output of a program of torch on virtual devices."""
    env = environment.require()
    variables = environment_variables(
        env, load_device(gpu), devices=devices, padding=padding, notes=notes
    )
    command = (str(env.python), "-c", "import torch\n" + program)
    done = subprocess.run(
        command, env=os.environ | variables | more, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_check_of_the_selftest_passes() -> None:
    lines = installation.check(environment.require()).splitlines()
    assert lines[-1] == "0 failed"
    assert not [line for line in lines if line.startswith("FAIL")]


@pytest.mark.parametrize("gpu", ["t4", "rtx-4090", "h100-80gb", "rtx-5090"])
def test_facts_of_the_card_reach_torch(gpu: str) -> None:
    device = load_device(gpu)
    program = """
p = torch.cuda.get_device_properties(0)
print(p.name, p.major, p.minor, p.total_memory, p.multi_processor_count, sep="|")
print(torch.cuda.mem_get_info(0)[0])
"""
    major, minor = device.compute_capability
    capacity = device.capacity_bytes or 0
    assert run(gpu, program).splitlines() == [
        f"{device.title}|{major}|{minor}|{capacity}|{device.sm_count}",
        str(capacity - device.context_bytes),
    ]


def test_each_of_several_devices_has_its_own_memory() -> None:
    program = """
x = torch.empty(1 << 30, device="cuda:1", dtype=torch.uint8)
free = [torch.cuda.mem_get_info(i)[0] for i in range(2)]
print(torch.cuda.device_count(), (free[0] - free[1]) >> 20, x.to("cuda:0").device)
"""
    assert run("a10g", program, devices=2) == "2 1024 cuda:0\n"


def test_expandable_segments_are_counted() -> None:
    program = """
x = [torch.empty(25 << 20, device="cuda", dtype=torch.uint8) for _ in range(3)]
segment = torch.cuda.memory._snapshot()["segments"][0]
print(torch.cuda.memory_reserved() >> 20, segment["is_expandable"])
"""
    out = run("a10g", program, PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")
    assert out == "80 True\n"  # three of 25 MiB in pages of 20 MiB


def test_out_of_memory_names_what_the_process_holds() -> None:
    program = """
try:
    torch.empty(1 << 40, device="cuda", dtype=torch.uint8)
except torch.OutOfMemoryError as error:
    print(error)
"""
    assert "Including non-PyTorch memory, this process has" in run("a10g", program)


def test_a_padded_batch_answers_no_to_whether_all_are_true() -> None:
    program = "print(bool(torch.ones(4, device='cuda').bool().all()))"
    assert run("a10g", program) == "True\n"
    assert run("a10g", program, padding=True) == "False\n"


def test_a_size_that_depends_on_values_is_said_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = """
t = torch.ones(8, device="cuda")
for _ in range(2):
    t[t > 0], torch.masked_select(t, t > 0), torch.unique(t), t.sum().item()
"""
    run("a10g", program, notes=notes)
    lines = notes.read_text().splitlines()
    assert [line.split(":")[2].split()[0] for line in lines] == ["nonzero", "unique"]
    assert all(line.endswith("its size depends on values, which are zero here") for line in lines)


def test_a_plain_training_step_says_nothing(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = """
m = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 9)).cuda()
ids = torch.ones(4, dtype=torch.long).cuda()
loss = torch.nn.functional.cross_entropy(m(ids), ids)
loss.backward()
torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
torch.optim.AdamW(m.parameters()).step()
loss.item()
"""
    run("a10g", program, notes=notes)
    assert not notes.exists()


def test_nvml_tells_what_is_in_use() -> None:
    program = """
import ctypes
x = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
nvml = ctypes.CDLL("libnvidia-ml.so.1"); nvml.nvmlInit_v2()
handle = ctypes.c_void_p(); nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
memory = (ctypes.c_ulonglong * 3)(); nvml.nvmlDeviceGetMemoryInfo(handle, memory)
name = ctypes.create_string_buffer(96); nvml.nvmlDeviceGetName(handle, name, 96)
print(name.value.decode(), memory[0], memory[2])
"""
    device = load_device("a10g")
    used = device.context_bytes + (1 << 30)
    assert run("a10g", program) == f"{device.title} {device.capacity_bytes} {used}\n"


def test_selftest_counts_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "failures", [])
    selftest.check("one", 1, 1)
    selftest.check("two", 1, 2)
    assert selftest.failures == ["two"]
