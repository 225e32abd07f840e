"""AdaLoRA as PEFT runs it: LoRA as an SVD, and a penalty on factors that are not orthogonal.

The user's loop calls ``update_and_allocate`` after each step, which keeps three more tensors of
every factor's size; a loop that does not, as transformers' Trainer, never prunes. That loop is
mirrored.

Source: huggingface/peft v0.21.2 tuners/adalora/layer.py, bnb.py, model.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memplan.dtypes import FP32
from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.arithmetic import add_, div, sub, vector_norm
from memplan.engine.ops.linalg import matmul, matmul_t
from memplan.engine.ops.pointwise import add, add_number, dropout, mul, scale, to
from memplan.engine.ops.views import clone, transpose
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import empty
from memplan.methods.tuner import TunerLayer, bits_of, require_targets, tune
from memplan.workload import Workload


class SVDLinear(TunerLayer):
    """``SVDLinear``: factors, singular values, and the rank as a number that trains, too.

    PEFT makes ``ranknum`` frozen, but moving it to the device makes a parameter of it anew, which
    trains. No checkpoint holds it.
    """

    def __init__(self, base_layer: Linear, rank: int, p: float) -> None:
        super().__init__(base_layer)
        self.lora_A = self.entry(rank, self.in_features)
        self.lora_B = self.entry(self.out_features, rank)
        self.lora_E = self.entry(rank, 1)
        self.ranknum = self.entry(1)
        self.dropout = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        ranknum = add_number(self.ranknum.default)
        x = to(x, self.lora_A.default.dtype)
        return add_(result, div(scale(self.update(x)), ranknum))

    def update(self, x: Tensor) -> Tensor:
        """``dropout(x) @ (lora_A * lora_E).T @ lora_B.T``."""
        inner = matmul_t(dropout(x, self.dropout), mul(self.lora_A.default, self.lora_E.default))
        return matmul_t(inner, self.lora_B.default)

    def unsaved(self) -> Iterator[Tensor]:
        """``AdaLoraModel._get_adapter_state_dict``."""
        yield self.ranknum.default


class SVDLinear8bitLt(SVDLinear):
    """``SVDLinear8bitLt``: conversions only outside autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        requires_conversion = S.autocast is None
        if requires_conversion:
            expected_dtype = result.dtype
            x = to(x, FP32)
        ranknum = add_number(self.ranknum.default)
        output = self.update(x)
        if requires_conversion:
            output = to(output, expected_dtype)
        output = div(scale(output), ranknum)
        result = add(result, output)
        return result


class SVDLinear4bit(SVDLinear):
    """``SVDLinear4bit``: the base's result is cloned, and added to in place."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        result = clone(result)
        ranknum = add_number(self.ranknum.default)
        requires_conversion = S.autocast is None
        if requires_conversion:
            expected_dtype = result.dtype
            x = to(x, self.lora_A.default.dtype)
        output = self.update(x)
        if requires_conversion:
            output = to(output, expected_dtype)
        output = div(scale(output), ranknum)
        result = add_(result, output)
        return result


LAYERS = {0: SVDLinear, 4: SVDLinear4bit, 8: SVDLinear8bitLt}


class AdaLoraModel(Module):
    """``AdaLoraModel``: the loss grows by how far the factors are from orthogonal."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs."""
        outputs = self.model.forward(*args, **kwargs)
        regu_loss = para_cov = identity = None
        for is_a, p in self.factors():
            S.tape.enter(p.layer)
            para_cov = matmul(p, transpose(p, 0, 1)) if is_a else matmul(transpose(p, 0, 1), p)
            identity = empty(para_cov.shape, para_cov.dtype)
            regu_loss = plus(regu_loss, distance(para_cov, identity))
        S.tape.enter(OUTSIDE)
        assert regu_loss is not None
        regu_loss = scale(regu_loss)  # / num_param
        outputs = outputs._replace(loss=add_(outputs.loss, scale(regu_loss)))
        del para_cov, identity  # both names live as long as the call
        return outputs

    def factors(self) -> Iterator[tuple[bool, Tensor]]:
        """(is it A, the factor) of every adapted layer, in the order of registration."""
        for name, _, _, p in self.model.named_parameters():
            if name.endswith(("lora_A.default", "lora_B.default")):
                yield name.endswith("lora_A.default"), p


def plus(total: Tensor | None, term: Tensor) -> Tensor:
    """``total += term``, from the number 0 on."""
    return add_number(term) if total is None else add_(total, term)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """``torch.norm(a - b, p="fro")``; autocast has it in fp32."""
    return vector_norm(sub(a, b), FP32 if S.autocast else None)


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return LAYERS[bits_of(base_layer)](base_layer, workload.rank, workload.dropout)

    require_targets(model, workload, ("llama", "qwen2", "qwen3"))
    tune(model, workload, make)
    return AdaLoraModel(model)
