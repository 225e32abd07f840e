"""Whole scripts on the virtual GPU: the recorder finds what torch says, and changes nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from memplan.evidence.rehearse import Rehearsal, rehearse
from memplan.evidence.virtual.environment import require
from memplan.evidence.virtual.launch import environment_variables
from memplan.hardware import load_device
from memplan.results import CATEGORIES

pytestmark = pytest.mark.virtual
SCRIPTS = Path(__file__).parents[2] / "notebooks" / "scripts"
LORA = str(SCRIPTS / "train_lora.py")
PARALLEL = str(SCRIPTS / "train_parallel.py")


def one(*command: str, **keys: object) -> Rehearsal:
    (done,) = rehearse(command, **keys)  # type: ignore[arg-type]
    return done


def printed_peak(text: str) -> int:
    found = re.search(r"peak:? ([\d,]+)", text)
    assert found, text
    return int(found[1].replace(",", ""))


def without_recorder(*command: str, gpu: str) -> str:
    environment = require()
    done = subprocess.run(
        [str(environment.python), *command],
        env={
            "PATH": "/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            **environment_variables(environment, load_device(gpu)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_trainer_script_is_recorded_to_the_byte_and_not_disturbed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = (LORA, "--batch-size", "1", "--length", "100", "--steps", "2")
    alone = printed_peak(without_recorder(*command, gpu="a10g"))
    done = one("python", *command, gpu="a10g")
    assert printed_peak(capfd.readouterr().out) == alone
    recording = done.recording
    assert recording is not None
    assert max(p.peak_allocated_bytes for p in recording.phases) == alone
    assert (done.fits, done.exit_code, recording.steps) == (True, 0, 2)
    assert recording.trainable_parameters == 12_615_680
    assert recording.breakdown_at_peak is not None
    assert tuple(recording.breakdown_at_peak) == CATEGORIES
    assert sum(recording.breakdown_at_peak.values()) == recording.peak_allocated_bytes
    assert [p.name for p in recording.phases if p.step == 2] == [
        "forward", "backward", "optimizer_step", "zero_grad", "other",
    ]  # fmt: skip


def test_a_batch_too_large_is_out_of_memory_where_it_is() -> None:
    done = one("python", LORA, "--batch-size", "64", "--length", "2048", gpu="a10g")
    assert (done.fits, done.exit_code) == (False, 1)
    assert done.recording is not None
    stop = done.recording.out_of_memory
    assert stop is not None
    assert (stop.step, stop.phase) == (1, "forward")
    assert ".layers." in stop.module
    assert stop.requested_bytes > 0
    assert "CUDA out of memory" in stop.message
    assert done.recording.breakdown_at_peak is not None
    assert done.recording.breakdown_at_peak["activations"] > 15 << 30


def test_a_run_ends_after_the_steps_that_were_asked_for() -> None:
    done = one("python", LORA, "--length", "64", "--steps", "50", gpu="l4", steps=2)
    assert done.recording is not None
    assert (done.exit_code, done.recording.steps) == (0, 2)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_a_rank_of_eight_by_itself(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = one("torchrun", PARALLEL, kind, gpu="l4", gpus=8, ranks=(3,))
    assert (done.rank, done.world_size, done.exit_code) == (3, 8, 0)
    assert done.recording is not None
    most = max(p.peak_allocated_bytes for p in done.recording.phases)
    assert printed_peak(capfd.readouterr().out) == most
    assert done.recording.steps == 3
