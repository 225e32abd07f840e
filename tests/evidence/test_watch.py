from __future__ import annotations

import builtins
import logging
import sys
from typing import Any

import pytest

from memplan.errors import MissingError
from memplan.estimate import estimate
from memplan.evidence.advice import helpful_changes
from memplan.evidence.watch import watch
from memplan.workload import Workload
from tests.evidence.fake_torch import GIB, fake_torch

KEYS: dict[str, Any] = {"model": "1b", "method": "lora", "seq_len": 64, "micro_batch_size": 4}


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = fake_torch()
    for name, module in fake.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def train(torch: Any, steps: int = 1) -> None:
    optimizer = torch.optim.Optimizer()
    for _ in range(steps):
        torch.memory.use(3 * GIB)
        torch.memory.use(-GIB)
        torch.autograd.backward()
        torch.memory.use(-2 * GIB)
        optimizer.step()
        torch.memory.use(-2 * GIB)
        optimizer.zero_grad()
        torch.memory.use(GIB)


def test_each_phase_is_logged_beside_its_prediction(torch: Any) -> None:
    lines: list[str] = []
    with watch(log=lines.append, **KEYS) as watched:
        train(torch, steps=2)
    predicted = estimate(**KEYS, gpu="a10g").phases["forward"].peak_allocated_bytes / GIB
    first, second = lines
    assert "memplan: step 1, peak allocated: forward 3.00 GiB" in first
    assert f"(predicted {predicted:.2f} GiB from step 2 on)" in first
    assert "backward 3.00 GiB" in first
    assert "optimizer step 3.00 GiB" in first
    error = 100 * (4 / predicted - 1)
    assert f"step 2, peak allocated: forward 4.00 GiB (predicted {predicted:.2f} GiB, " in second
    assert f"{error:+.1f} %" in second
    assert watched.peak_allocated_bytes == 4 * GIB
    assert watched.peak_reserved_bytes == 5 * GIB


@pytest.mark.parametrize(("every", "count"), [(1, 5), (2, 3), (5, 1)])
def test_lines_come_every_so_many_steps(every: int, count: int, torch: Any) -> None:
    lines: list[str] = []
    with watch(log=lines.append, every=every, **KEYS):
        train(torch, steps=5)
    assert len(lines) == count


def test_micro_batches_share_a_line_with_the_highest_peak(torch: Any) -> None:
    lines: list[str] = []
    with watch(log=lines.append, **KEYS):
        torch.memory.use(5 * GIB)
        torch.autograd.backward()
        torch.memory.use(-6 * GIB)
        train(torch)
    (line,) = lines
    assert "forward 6.00 GiB" in line  # the second one begins with what the first has left
    assert "backward 6.00 GiB" in line


def test_torch_is_as_before_once_the_watch_ends(torch: Any) -> None:
    before = (torch.autograd.backward, torch.optim.Optimizer.zero_grad, torch.nn.Module.zero_grad)
    with watch(log=lambda _: None, **KEYS):
        assert torch.autograd.backward is not before[0]
    after = (torch.autograd.backward, torch.optim.Optimizer.zero_grad, torch.nn.Module.zero_grad)
    assert after == before
    assert (torch.pre_hooks, torch.post_hooks) == ([], [])


def test_running_out_of_memory_is_explained_and_goes_on(torch: Any) -> None:
    def fail() -> None:
        train(torch)
        torch.memory.use(20 * GIB)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    lines: list[str] = []
    with pytest.raises(torch.OutOfMemoryError, match="Tried"), watch(log=lines.append, **KEYS):
        fail()
    text = "\n".join(lines[1:])
    assert "out of memory in step 2, forward: 21.00 GiB allocated, 22.00 GiB reserved" in text
    assert "Tried to allocate 9 GiB" in text
    assert "predicted peak" in text
    assert "weights" in text
    for keys in ("activation_checkpointing=True", "micro_batch_size=1, gradient_accumulation_st",
                 "quantization=nf4-dq"):  # fmt: skip
        assert f"memplan: {keys}" in text


def test_a_failed_backward_is_told_and_leaves_the_watch_usable(torch: Any) -> None:
    lines: list[str] = []
    whole = torch.autograd.backward

    def fail() -> None:
        raise torch.OutOfMemoryError("full")

    watched = watch(log=lines.append, **KEYS)
    torch.autograd.backward = fail
    with pytest.raises(torch.OutOfMemoryError), watched:
        torch.autograd.backward()
    assert "step 1, backward" in lines[0]
    torch.autograd.backward = whole
    with watched:
        train(torch)
    assert lines[-1].startswith("memplan: step 1, peak allocated: forward")


def test_other_errors_go_on_without_a_word(torch: Any) -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="mine"), watch(log=lines.append, **KEYS):
        raise ValueError("mine")
    assert lines == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "model: not given"),
        ({"model": "7bb"}, "7bb"),
        ({"model": "1b", "method": "poly"}, "not modelled"),
        ({"model": "1b", "rnak": 3}, "rnak"),
    ],
)
def test_no_prediction_is_said_once_and_measuring_goes_on(
    keys: dict[str, Any], told: str, torch: Any
) -> None:
    lines: list[str] = []
    with watch(log=lines.append, **keys):
        train(torch, steps=2)
    assert len(lines) == 3
    assert lines[0].startswith("memplan: no prediction: ")
    assert told in lines[0]
    assert "forward 3.00 GiB;" in lines[1]


def test_a_log_that_fails_does_not_stop_the_training(torch: Any) -> None:
    def fail(text: str) -> None:
        raise OSError(text)

    with watch(log=fail, **KEYS):
        train(torch)


def test_a_logger_gets_the_lines(torch: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), watch(log=logging.getLogger("mine"), **KEYS):
        train(torch)
    assert "step 1" in caplog.text


def test_a_device_that_nothing_uses_yet_is_left_alone(torch: Any) -> None:
    torch.memory.initialized = False
    with watch(log=lambda _: None, **KEYS):
        pass
    assert torch.memory.resets == 0


def test_the_card_is_the_catalogues_of_that_title(torch: Any) -> None:
    for title, name in (("NVIDIA A10G", "a10g"), ("Unheard of", None)):
        torch.title = title
        with watch(log=lambda _: None, **KEYS) as watched:
            pass
        assert watched.estimate is not None
        assert watched.estimate.workload["gpu"] == name


def test_prediction_waits_until_the_device_is_used(torch: Any) -> None:
    lines: list[str] = []
    torch.memory.initialized = False
    with watch(log=lines.append, **KEYS) as watched:
        assert watched.estimate is None
        torch.memory.initialized = True
        train(torch)
    assert "predicted" in lines[0]


def test_workload_and_model_say_what_is_trained(torch: Any) -> None:
    class Config:
        dtype = "torch.float16"

        def to_dict(self) -> dict[str, Any]:
            return {
                "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
                "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 100,
                "torch_dtype": "float16", "id2label": {0: "a"},
            }  # fmt: skip

    class Model:
        config = Config()

    with watch(Model(), seq_len=8, log=lambda _: None) as watched:
        pass
    assert watched.estimate is not None
    assert watched.estimate.workload["dtype"] == "float16"
    with watch(workload=Workload(**KEYS), rank=4, log=lambda _: None) as watched:
        pass
    assert watched.estimate is not None
    assert watched.estimate.workload["rank"] == 4


def test_without_a_device_it_is_missing(torch: Any) -> None:
    torch.memory.available = False
    with pytest.raises(MissingError, match="no CUDA device"):
        watch(**KEYS)


def test_without_torch_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match="needs torch") as caught:
        watch(**KEYS)
    assert caught.value.exit_code == 3


def test_advice_is_estimated_and_only_what_helps() -> None:
    workload = Workload(**{**KEYS, "method": "full", "seq_len": 512})
    now = estimate(workload)
    changes = helpful_changes(workload, now)
    assert changes
    assert [c.saved_bytes for c in changes] == sorted(
        (c.saved_bytes for c in changes), reverse=True
    )
    for change in changes:
        again = estimate(workload, **change.keys)
        assert now.peak_allocated_bytes - again.peak_allocated_bytes == change.saved_bytes > 0


def test_nothing_helps_what_is_already_small() -> None:
    workload = Workload(
        model="1b", method="lora", quantization="nf4-dq", optimizer="paged_adamw_8bit",
        seq_len=8, activation_checkpointing=True,
    )  # fmt: skip
    assert helpful_changes(workload, estimate(workload)) == ()
