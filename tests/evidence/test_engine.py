"""The virtual engine: from a recording to an estimate, with the run itself faked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memplan.evidence.virtual.environment as virtual
from memplan import engines
from memplan.errors import ConfigError, MissingError, UnknownNameError, UnsupportedError
from memplan.evidence import engine
from memplan.evidence.recording import DeviceFacts, OutOfMemory, PhaseCounters, Recording
from memplan.evidence.runner import launch
from memplan.hardware import load_device
from memplan.report.json import estimate_mapping
from memplan.results import PeakMoment
from memplan.workload import Workload

MIB = 1 << 20
LOFTQ = {"init_lora_weights": "loftq"}
OPT = {"model_type": "opt", "hidden_size": 64}


def counters(name: str, step: int, peak: int) -> PhaseCounters:
    return PhaseCounters(name, step, peak - 12, peak, 20 * MIB, peak // 2, peak // 2, 20 * MIB)


RECORDING = Recording(
    device=DeviceFacts("NVIDIA A10G", (8, 6), 24 << 30, 23 << 30),
    versions={"torch": "2.14.1", "peft": "0.21.2"},
    phases=(
        counters("load", 0, 30 * MIB),
        counters("forward", 1, 5 * MIB),
        counters("forward", 2, 6 * MIB),
        counters("backward", 2, 7 * MIB),
        counters("forward", 2, 8 * MIB),
    ),
    peak=PeakMoment(2, "backward", "lm_head", "mm"),
    breakdown_at_peak={"weights": 7 * MIB},
    total_parameters=10,
    trainable_parameters=4,
    checkpoint_bytes=16,
)
STOPPED = replace(RECORDING, out_of_memory=OutOfMemory(1, "forward", "layer", "mm", 512, "OOM"))
ENVIRONMENT = virtual.Environment(Path("/python"), Path("/libraries"), {})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Capacities that were run on; a card below 8 GiB is too small."""
    capacities: list[int] = []

    def record(self: engine.VirtualRun, capacity_bytes: int) -> Recording:
        capacities.append(capacity_bytes)
        return STOPPED if capacity_bytes < 8 << 30 else RECORDING

    monkeypatch.setattr(engine.VirtualRun, "record", record)
    monkeypatch.setattr(virtual, "find", lambda venv=None: ENVIRONMENT)
    return capacities


def workload(**keys: Any) -> Workload:
    return Workload.resolve(model=OPT, **keys)[0]


def test_the_last_step_s_last_phase_of_a_name_is_shown(runs: list[int]) -> None:
    e = engine.estimate_virtual(workload(method="lora"), ("gpu",))
    assert list(e.phases) == ["load", "forward", "backward"]
    assert e.phases["forward"].peak_allocated_bytes == 8 * MIB
    assert (e.peak_allocated_bytes, e.assumed) == (8 * MIB, ("gpu",))
    assert e.breakdown_at_peak == {"weights": 7 * MIB}
    assert e.peak.module == "lm_head"


def test_without_a_gpu_nothing_fills_the_card(runs: list[int]) -> None:
    e = engine.estimate_virtual(workload())
    assert runs == [engine.ENDLESS_BYTES]
    assert e.gpu is None
    assert e.device_bytes == 20 * MIB + load_device(None).context_bytes


def test_what_does_not_fit_is_run_again_without_a_limit(runs: list[int]) -> None:
    e = engine.estimate_virtual(workload(gpu="4GiB"))
    assert runs == [4 << 30, engine.ENDLESS_BYTES]
    assert e.gpu is not None
    assert not e.gpu.fits
    assert e.gpu.out_of_memory == PeakMoment(1, "forward", "layer", "mm")
    assert e.gpu.headroom_bytes == (4 << 30) - e.gpu.context_bytes - 20 * MIB


def test_what_fits_is_run_once(runs: list[int]) -> None:
    e = engine.estimate_virtual(workload(gpu="a10g"))
    assert runs == [load_device("a10g").capacity_bytes]
    assert e.gpu is not None
    assert e.gpu.fits
    assert e.gpu.out_of_memory is None


def test_it_is_always_labelled_virtual(runs: list[int]) -> None:
    values = estimate_mapping(engine.estimate_virtual(workload()))
    assert values["evidence"]["level"] == "virtual"
    assert "torch 2.14.1, peft 0.21.2; not a CUDA run" in values["evidence"]["notes"][0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"method": "lora_fa"}, "LoRA-FA optimizer"),
        ({"optimizer": "paged_lion_8bit"}, "managed memory"),
        ({"gpu": "h100-80gb"}, "cuDNN"),
        ({"strategy": "ddp", "dp_size": 4}, "rank 0 of 4"),
        ({"method": "lora", "quantization": "int8"}, "outlier"),
    ],
)
def test_what_a_reader_should_know_is_noted(
    runs: list[int], keys: dict[str, Any], said: str
) -> None:
    assert said in " ".join(engine.estimate_virtual(workload(**keys)).evidence.notes)


def test_a_library_s_refusal_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = replace(RECORDING, refused="ValueError: no such target")
    monkeypatch.setattr(virtual, "require", lambda venv=None: ENVIRONMENT)
    monkeypatch.setattr("memplan.evidence.virtual.launch.environment_variables", lambda *a, **k: {})
    monkeypatch.setattr(launch, "run", lambda *a, **k: refused)
    with pytest.raises(ConfigError, match="the libraries refuse this run: ValueError: no such"):
        engine.estimate_virtual(workload(method="lora"))


def test_a_model_without_a_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type: not given"):
        engine.estimate_virtual(Workload.resolve(model={"hidden_size": 8})[0])


def test_what_the_runner_does_not_do_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'llama_adapter_v2': neither"):
        engine.estimate_virtual(workload(method="llama_adapter_v2"))


def test_what_cudnn_decides_is_refused() -> None:
    options = {"encoder_reparameterization_type": "LSTM"}
    why = engine.why_not_run(workload(method="p_tuning", peft_config=options))
    assert why is not None
    assert "cuDNN" in why


def test_a_strategy_runs_in_the_plain_loop() -> None:
    spread: dict[str, Any] = {"strategy": "fsdp2", "dp_size": 2}
    assert engine.why_not_run(workload(**spread)) is None
    assert "and not yet in the Trainer" in str(
        engine.why_not_run(workload(**spread, loop="trainer"))
    )
    assert engine.rank_variables(workload(**spread))["WORLD_SIZE"] == "2"
    assert engine.rank_variables(workload()) == {}


def test_limits_that_were_met_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    assert engine.read_limits(path) == ()
    path.write_text("Triton\nTriton\n\nnonzero\n")
    assert engine.read_limits(path) == ("Triton", "nonzero")


def test_auto_takes_the_byte_engine_where_it_can(runs: list[int]) -> None:
    e = engines.estimate(model="1b", method="lora", seq_len=16, steps=1)
    assert e.evidence.level == "exact"
    assert runs == []


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"model": OPT}, "the architecture 'opt'"),
        ({"model": "1b", "method": "poly"}, "method: 'poly'"),
        ({"model": "1b", "optimizer": "lomo"}, "optimizer: 'lomo'"),
        ({"model": "1b", "method": "lora", "peft_config": LOFTQ}, "init_lora_weights: 'loftq'"),
    ],
)
def test_auto_takes_the_virtual_engine_where_it_must(
    runs: list[int], keys: dict[str, Any], why: str
) -> None:
    e = engines.estimate(**keys)
    assert e.evidence.level == "virtual"
    (warning,) = e.warnings
    assert why in warning


def test_auto_says_how_to_set_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "find", lambda venv=None: None)
    with pytest.raises(
        MissingError, match=r"'poly' is not modelled yet.*rehearse --setup"
    ) as raised:
        engines.estimate(model="1b", method="poly")
    assert raised.value.exit_code == 3


def test_what_no_engine_does_is_refused_as_before(runs: list[int]) -> None:
    with pytest.raises(UnsupportedError, match="'llama_adapter_v2' is not modelled yet"):
        engines.estimate(model="1b", method="llama_adapter_v2")
    assert runs == []


def test_the_byte_engine_alone_refuses(runs: list[int]) -> None:
    with pytest.raises(UnsupportedError, match="not modelled yet"):
        engines.estimate(model="1b", method="poly", engine="bytes")
    assert runs == []


def test_a_mistake_is_no_reason_to_try_another_engine(runs: list[int]) -> None:
    with pytest.raises(ConfigError, match="hidden_sizes"):
        engines.estimate(model={"model_type": "llama", "hidden_sizes": 8})
    assert runs == []


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'virtual'"):
        engines.estimate(model="1b", engine="virtul")
