"""Record what the calls of ``kernel_cases.py`` make and free on one card.

    PYTHON tests/engine/record_kernels.py CARD

``CARD`` is memplan's name of the CUDA device that ``PYTHON``'s torch has: real, or the virtual
GPU, which the records' ``label`` must say. What torch refuses is recorded as null.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.engine.kernel_cases import KERNEL_CASES, masks
from tests.engine.torch_side import events_of_torch, warm_up

FOLDER = Path(__file__).with_name("recorded_kernels")


def record() -> dict[str, Any]:
    """All calls of one card."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    warm_up()
    calls: dict[str, Any] = {}
    for case in KERNEL_CASES:
        for mask in masks(case):
            try:
                calls[case.key(mask)] = events_of_torch(case, mask)
            except RuntimeError as error:
                if "out of memory" in str(error):
                    continue
                calls[case.key(mask)] = None
            torch.cuda.empty_cache()
    return {"label": "virtual", "torch": torch.__version__, "calls": calls}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    recorded = record()
    rows = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}"
        for k, v in recorded["calls"].items()
    )
    head = f'"label": "{recorded["label"]}", "torch": "{recorded["torch"]}"'
    (FOLDER / f"{sys.argv[1]}.json").write_text(f'{{{head}, "calls": {{\n{rows}\n}}}}\n')
