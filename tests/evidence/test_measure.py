from __future__ import annotations

import ctypes
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import ConfigError, MemplanError, MissingError, UnsupportedError
from memplan.evidence import measure as module
from memplan.evidence import targets
from memplan.evidence.measure import RefusedError, estimate_of, measure, measure_on, resolve
from memplan.evidence.nvml import Memory, Nvml, Watch, open_nvml
from memplan.evidence.runner import launch
from memplan.workload import Workload
from tests.evidence.measurements import A10G, TARGET, fake_run, make_recording

TINY = {
    **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 256},
    **{"num_hidden_layers": 2, "num_attention_heads": 4},
}


class FakeNvml:
    """The driver's library, with a card that fills."""

    def __init__(self) -> None:
        self.used = [1 << 30, 3 << 30, 2 << 30]
        self.asked = b""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlShutdown(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, size: ctypes.c_uint) -> int:
        buffer.value = b"580.95.05"
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        self.asked = uuid
        return 0

    def nvmlDeviceGetMemoryInfo_v2(self, device: Any, memory: Any) -> int:
        info = memory._obj
        assert info.version == ctypes.sizeof(Memory) | 2 << 24
        info.used = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        return 0


def python_that_says(folder: Path, line: str, code: int = 0) -> str:
    """An interpreter that answers any program with one line."""
    path = folder / "python"
    path.write_text(
        f"#!/bin/sh\necho '{line}'\necho 'ImportError: no libcudart' >&2\nexit {code}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run", fake_run)


@pytest.mark.usefixtures("runner")
def test_measurement_holds_the_workload_on_the_card_that_was_found() -> None:
    m = measure_on(TARGET, resolve({"model": "1b", "seq_len": 64}, TARGET))
    assert (m.label, m.gpu, m.driver) == ("virtual", "NVIDIA A10G", None)
    assert m.workload["model"] == "llama-3.2-1b"
    assert (m.workload["gpu"], m.workload["seq_len"]) == ("a10g", 64)
    assert m.versions["torch"] == "2.14.1"
    assert m.time.endswith("+00:00")
    assert m.recording.peak_allocated_bytes == (1 << 30) + 64


def test_model_of_a_file_is_recorded_by_its_config_and_not_by_its_path(tmp_path: Path) -> None:
    import json

    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    for given in (str(path), str(tmp_path), path, TINY):
        assert resolve({"model": given}, TARGET).to_dict()["model"] == TINY


def test_one_workload_measured_twice_has_two_ids(runner: None) -> None:
    workload = resolve({"model": "1b"}, TARGET)
    first, second = measure_on(TARGET, workload), measure_on(TARGET, workload)
    assert first.key == second.key
    assert first.id != second.id


def test_refused_run_is_an_error_with_the_library_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = make_recording(refused="ValueError: no such kernel")
    monkeypatch.setattr(launch, "run", lambda *_, **__: refused)
    with pytest.raises(RefusedError, match="ValueError: no such kernel") as error:
        measure_on(TARGET, resolve({"model": "1b"}, TARGET))
    assert error.value.exit_code == 1


@pytest.mark.usefixtures("runner")
def test_a_rank_is_measured_with_its_number_and_its_snapshot() -> None:
    workload = resolve({"model": "1b", "strategy": "ddp", "dp_size": 2}, TARGET)
    first, second = TARGET.ranks(workload.dp_size)
    assert (second.environment["RANK"], second.environment["WORLD_SIZE"]) == ("1", "2")
    m = measure_on(second, workload)
    assert (m.rank, m.world_size, m.workload["dp_size"]) == (1, 2, 2)
    assert module.of_rank(Path("s.pickle"), second) == Path("s-rank1.pickle")
    assert module.of_rank(Path("s.pickle"), TARGET) == Path("s.pickle")
    assert estimate_of(workload) is None
    assert first.runs_alone
    assert not replace(first, label="cuda").runs_alone


def test_environment_that_changes_the_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with pytest.raises(UnsupportedError, match="PYTORCH_CUDA_ALLOC_CONF"):
        measure({"model": "1b"})


def test_more_processes_than_cards_are_missing_a_card(tmp_path: Path) -> None:
    facts = '"missing": [], "cuda": "13.0", "torch": "2.14.1", "count": 2'
    python = python_that_says(tmp_path, f"memplan-probe {{{facts}}}")
    with pytest.raises(MissingError, match=r"process 3 .* start 2 processes at most"):
        targets.cuda_target(None, python=python, world=(3, 4, 3))


def test_the_probe_looks_at_the_card_of_the_process(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho memplan-probe '{\"missing\": [\"'$MEMPLAN_LOCAL_RANK'\"]}'\n"
    )
    python.chmod(0o755)
    assert targets.probe(str(python), 3)["missing"] == ["3"]


def test_python_without_torch_is_told_what_to_install(tmp_path: Path) -> None:
    python = python_that_says(tmp_path, 'memplan-probe {"missing": ["torch", "peft"]}')
    with pytest.raises(MissingError, match=r"torch, peft; pip install 'memplan\[evidence\]'") as e:
        measure({"model": "1b"}, python=python)
    assert "--virtual" in str(e.value)
    assert e.value.exit_code == 3


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ('"cuda": null, "torch": "2.14.1+cpu"', "was built without CUDA"),
        ('"cuda": "13.0", "torch": "2.14.1"', "sees no CUDA GPU"),
    ],
)
def test_torch_without_a_card_is_missing_something(facts: str, told: str, tmp_path: Path) -> None:
    python = python_that_says(tmp_path, f'memplan-probe {{"missing": [], {facts}}}')
    with pytest.raises(MissingError, match=told):
        targets.cuda_target(None, python=python)


def test_python_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="ImportError: no libcudart"):
        targets.probe(python_that_says(tmp_path, "", 1))
    with pytest.raises(MissingError, match="cannot be started"):
        targets.probe(str(tmp_path / "none"))


def test_this_python_can_be_asked() -> None:
    assert isinstance(targets.probe(sys.executable)["missing"], list)


def card(name: str, total: int) -> str:
    return f'memplan-probe {{"missing": [], "name": "{name}", "total_bytes": {total}, "uuid": "a"}}'


def test_card_is_matched_to_the_catalogue_by_the_name_that_cuda_reports(tmp_path: Path) -> None:
    python = python_that_says(tmp_path, card("NVIDIA A10G", A10G))
    target = targets.cuda_target("A10G", python=python)
    assert (target.label, target.gpu, target.uuid) == ("cuda", "a10g", "a")
    with pytest.raises(ConfigError, match="the card here is NVIDIA A10G"):
        targets.cuda_target("t4", python=python)


def test_card_that_the_catalogue_has_not_is_its_capacity(tmp_path: Path) -> None:
    python = python_that_says(tmp_path, card("NVIDIA X", 8 << 30))
    assert targets.cuda_target(None, python=python).gpu == str(8 << 30)
    assert Workload(model="1b", gpu=str(8 << 30)).gpu == str(8 << 30)


def test_virtual_card_must_be_named() -> None:
    with pytest.raises(ConfigError, match="gpu: name the virtual card"):
        measure({"model": "1b"}, label="virtual")


def test_what_the_fast_engine_does_not_know_has_no_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(workload: Workload) -> None:
        raise UnsupportedError("not modelled")

    monkeypatch.setattr(module, "estimate", refuse)
    assert estimate_of(Workload(model="1b")) is None


def test_driver_is_asked_for_its_version_and_the_memory_in_use() -> None:
    library = FakeNvml()
    nvml = open_nvml(lambda name: library)
    assert nvml is not None
    assert nvml.driver_version() == "580.95.05"
    watch = Watch("1234", nvml=nvml)
    with watch:
        while len(library.used) > 1:
            pass
    assert library.asked == b"GPU-1234"
    assert (watch.before_bytes, watch.peak_bytes) == (1 << 30, 3 << 30)
    noted = module.with_device_use(make_recording(), watch)
    assert noted.device_used_bytes == 3 << 30
    assert "were in use before the run" in noted.notes[0]


def test_without_a_driver_there_is_no_answer_and_no_error() -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    assert open_nvml(missing) is None
    nvml = Nvml(object())  # a library that lacks the functions
    assert nvml.driver_version() is None
    with Watch("1234", nvml=nvml) as watch:
        pass
    assert watch.peak_bytes is None
    assert module.with_device_use(make_recording(), watch) == make_recording()


@pytest.mark.virtual
def test_measured_on_the_virtual_gpu_equals_the_estimate() -> None:
    keys = {"model": TINY, "method": "lora", "seq_len": 32, "gpu": "a10g"}
    m = measure(keys, label="virtual")
    told = estimate_of(Workload(**m.workload))
    assert told is not None
    assert m.label == "virtual"
    assert m.recording.peak_requested_bytes == told.peak_requested_bytes
    assert m.recording.peak_allocated_bytes == told.peak_allocated_bytes
    assert m.recording.peak_reserved_bytes == told.peak_reserved_bytes


@pytest.mark.virtual
def test_out_of_memory_on_the_virtual_gpu_is_a_result() -> None:
    m = measure({"model": TINY, "seq_len": 65536, "gpu": "t4"}, label="virtual")
    assert m.recording.out_of_memory is not None


@pytest.mark.virtual
def test_child_that_crashes_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "MODULE", "memplan.evidence.no_such_module")
    with pytest.raises(MemplanError, match="No module named"):
        measure({"model": "1b", "gpu": "a10g"}, label="virtual")
