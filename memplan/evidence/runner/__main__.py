"""``python -m memplan.evidence.runner JOB.json``: run one workload and write its recording.

A job holds ``workload``, ``model_config``, ``history``, ``snapshot`` and ``out``. A library's
refusal is a result; anything else that goes wrong ends the process with its traceback.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # nothing is downloaded
    "TOKENIZERS_PARALLELISM": "false",
    # A pool of threads loads a checkpoint in an order that is chance; one takes it by name.
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
}
REFUSALS = (
    *(RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError),
    *(KeyError, AttributeError, ImportError, IndexError, ZeroDivisionError),
)
MAX_TEXT = 600
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_job(job: Json) -> Json:
    """The recording of a job, as a mapping."""
    import torch

    from memplan.evidence.recorder import Recorder
    from memplan.evidence.runner.loops import LOOPS, attention_kernel

    # cuDNN's attention, which torch may prefer on Hopper, keeps workspaces that depend on its
    # version; as in every recorded run, flash attention's or the efficient kernel runs instead.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.cuda.init()
    w, model, more = job["workload"], None, {}
    recorder = Recorder(history=job["history"], keep_events=bool(job.get("snapshot")))
    recorder.start()
    try:
        with attention_kernel(w):
            model = LOOPS[w["loop"]](w, job["model_config"], recorder)
    except torch.OutOfMemoryError as error:
        recorder.out_of_memory(error)
    except REFUSALS as error:
        more["refused"] = describe(error)
    if job.get("snapshot"):
        recorder.write_snapshot(job["snapshot"])
    recording: Json = recorder.finish(model, **more).to_mapping()
    return recording


def describe(error: BaseException) -> str:
    """A library's refusal in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:MAX_TEXT]


def end_with_parent() -> None:
    """End when memplan does, however it ends: a run that nobody waits for would hold the GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run the job of the command line."""
    end_with_parent()
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    out.write_text(json.dumps(run_job(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
