"""PEFT's ``prepare_model_for_kbit_training``.

Source: huggingface/peft v0.21.2 peft/utils/other.py.
"""

from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine.nn import Linear, Module
from memplan.engine.state import S
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Storage, numel
from memplan.quantization.base import QuantizedLinear


def prepare_model_for_kbit_training(model: Module) -> None:
    """Freeze all; cast each 16-bit parameter to fp32 in turn; empty the allocator's cache.

    Of a model that torchao or hqq quantised, nothing is cast.
    """
    for p in model.parameters():
        p.requires_grad = False
    if any(isinstance(m, QuantizedLinear) and not m.is_kbit for m in model.modules()):
        return
    for p in model.parameters():
        if p.dtype is BF16 or p.dtype is FP16:
            S.tape.enter(p.layer)
            p.storage = Storage(numel(p.shape) * FP32.itemsize)
            p.dtype = FP32
    S.tape.enter(OUTSIDE)
    for module in model.modules():
        if type(module) is Linear:
            module.compute_dtype = module.weight.dtype
    S.tape.empty_cache()
