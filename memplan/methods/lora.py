"""LoRA as PEFT runs it.

Source: huggingface/peft v0.21.2 peft/tuners/lora/layer.py, tuners_utils.py.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module, building_layer, parameter
from memplan.engine.ops.pointwise import add, dropout, scale, to
from memplan.engine.tape import OUTSIDE
from memplan.errors import ConfigError
from memplan.workload import Workload


class LoraLinear(Module):
    """``peft.tuners.lora.layer.Linear``."""

    def __init__(self, base_layer: Linear, rank: int, p: float) -> None:
        self.base_layer = base_layer
        n_out, n_in = base_layer.out_features, base_layer.in_features
        self.lora_A = Linear(
            n_in, rank, base_layer.compute_dtype
        )  # made on the host, moved in the base's dtype
        self.lora_B = Linear(rank, n_out, base_layer.compute_dtype)
        self.dropout = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        result = add(result, scale(self.lora_B(self.lora_A(dropout(x, self.dropout)))))
        result = to(result, torch_result_dtype)
        return result


def apply(model: Module, workload: Workload) -> None:
    """``get_peft_model``: freeze, wrap the targets in module order, then cast the adapters to fp32,
    one by one.
    """
    for p in model.parameters():
        p.requires_grad = False
    made = inject(model, workload)
    if not made:
        raise ConfigError(
            f"target_modules: {workload.target_modules!r} match no module of the model."
        )
    if workload.adapter_dtype != "float32":
        return
    for m in made:
        for layer in (m.lora_A, m.lora_B):
            if layer.weight.dtype is not FP32:
                old = layer.weight
                with building_layer(old.layer, old.copies):
                    layer.weight = parameter(old.shape, FP32)
                del old


def inject(model: Module, workload: Workload) -> list[LoraLinear]:
    """Wrap each target; the wrappers, in module order."""
    made = []
    for m in list(model.modules()):
        for name, child in list(vars(m).items()):
            if isinstance(child, Linear) and is_target(name, workload):
                layer = getattr(child, "weight", None)
                place = (layer.layer, layer.copies) if layer is not None else (OUTSIDE, 1)
                with building_layer(*place):
                    new = lora_class(child)(child, workload.rank, workload.dropout)
                setattr(m, name, new)
                made.append(new)
    return made


def lora_class(base_layer: Linear) -> type[LoraLinear]:
    """Which wrapper a layer gets: PEFT's dispatch by the class of the base layer."""
    from memplan.methods.lora_bnb import LoraLinear4bit, LoraLinear8bitLt

    classes: dict[int, type[LoraLinear]] = {4: LoraLinear4bit, 8: LoraLinear8bitLt}
    return classes.get(getattr(base_layer, "bits", 0), LoraLinear)


def is_target(name: str, workload: Workload) -> bool:
    """Whether a module of this name is adapted."""
    targets = workload.target_modules or ("q_proj", "v_proj")
    return name != "lm_head" if targets == "all-linear" else name in targets
