"""Record what every op of ``cases.py`` saves, makes and frees on a CUDA build of torch.

    PYTHON tests/engine/record_ops.py

``PYTHON`` is one whose torch has a CUDA device of compute capability 8.0 and 108 multiprocessors:
an A100, or the virtual GPU, which the records' ``label`` must say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.engine.cases import CASES
from tests.engine.torch_side import events_of_torch, saved_by_torch, warm_up

OUT = Path(__file__).with_name("recorded_ops.json")


def record() -> dict[str, Any]:
    """All calls."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    warm_up()
    calls = {}
    for case in CASES:
        for mask in case.masks():
            required, saved = saved_by_torch(case, mask, "cuda")
            forward, backward = events_of_torch(case, mask)
            calls[case.key(mask)] = {
                "requires_grad": required,
                "saved": saved,
                "forward": forward,
                "backward": backward,
            }
    return {
        "label": "virtual",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "calls": calls,
    }


def lines(record: dict[str, Any]) -> str:
    """JSON with one call a line."""
    head = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record.items() if k != "calls"
    )
    rows = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}"
        for k, v in record["calls"].items()
    )
    return f'{{{head},\n"calls": {{\n{rows}\n}}}}\n'


if __name__ == "__main__":
    OUT.write_text(lines(record()))
