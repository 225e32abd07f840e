"""``python -m memplan.evidence.runner JOB.json``: run one workload and write its recording.

A job holds ``workload``, ``model_config``, ``history``, ``snapshot`` and ``out``; one rank of many
also whether it runs ``alone``. A library's refusal is a result; anything else that goes wrong ends
the process with its traceback.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memplan.evidence.runner.parallel import Group

Json = dict[str, Any]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # nothing is downloaded
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_SYMBOLIZE_MODE": "dladdr",  # C++ frames by the libraries' own symbols: far quicker
    # A pool of threads loads a checkpoint in an order that is chance; one takes it by name.
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
}
REFUSALS = (
    *(RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError),
    *(KeyError, AttributeError, ImportError, IndexError, ZeroDivisionError),
)
MAX_TEXT = 600
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_job(job: Json, group: Group | None = None) -> Json:
    """The recording of a job, as a mapping; ``group``: the ranks that it is one of, if any."""
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
            marks = group.marks(recorder) if group else recorder
            model = LOOPS[w["loop"]](w, job["model_config"], marks)
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


def join(job: Json) -> Group | None:
    """The ranks that a job is run by, met; none if it takes one device."""
    if job["workload"]["strategy"] == "single":
        return None
    from memplan.evidence.runner.parallel import start_group

    return start_group(job["workload"], alone=job["alone"])


def why_stopped(recording: Json) -> str | None:
    """Why a run did not get to its end, in the words of what is told to the other ranks."""
    if recording["out_of_memory"] is not None:
        return "is out of memory"
    refused = recording["refused"]
    return None if refused is None else f"was refused: {refused}"


def main() -> None:
    """Run the job of the command line."""
    end_with_parent()
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    group = join(job)
    recording = run_job(job, group)
    Path(job["out"]).write_text(json.dumps(recording), encoding="utf-8")
    if group is not None:
        group.end(why_stopped(recording))


if __name__ == "__main__":
    main()
