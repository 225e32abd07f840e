"""torch's own count of what a workload's first micro batch computes, on the device torch has.

    PYTHON tests/evidence/count_flops.py '{"model": {...}, "method": "lora", ...}'

Prints the FLOPs of the forward and of forward and backward, as ``FlopCounterMode`` counts them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.evidence.runner.methods import apply_method
from memplan.evidence.runner.models import load_model
from memplan.workload import Workload


def count(keys: dict[str, Any]) -> list[int]:
    """(forward, forward and backward). [FLOPs]"""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    w = Workload.resolve(keys)[0].to_dict()
    model = apply_method(w, load_model(w, w["model"]))
    model.train()
    ids = torch.zeros(w["micro_batch_size"], w["seq_len"], dtype=torch.long, device="cuda")
    counter = FlopCounterMode(display=False)
    with counter:
        loss = model(input_ids=ids, labels=ids).loss
        forward = counter.get_total_flops()
        loss.backward()
    return [forward, counter.get_total_flops()]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count(json.loads(sys.argv[1]))) + "\n")
