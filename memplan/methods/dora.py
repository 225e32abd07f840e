"""DoRA as PEFT runs it: LoRA, and a trained length for each output of the adapted weight.

Each forward makes the adapted weight whole, in the dtype of the adapter's input, for the sake of
its norms. They are detached, so the graph that made the update dies with the forward.

Source: huggingface/peft v0.21.2 peft/tuners/lora/dora.py, peft/tuners/lora/variants.py
``DoraLinearVariant``, ``DoraEmbeddingVariant``.
"""

from __future__ import annotations

from memplan.dtypes import FP16, FP32
from memplan.engine import S, Tensor
from memplan.engine.nn import Embedding, Linear, Module
from memplan.engine.ops import embedding as embedding_op
from memplan.engine.ops.arithmetic import div, sub
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.norm import eye, norms
from memplan.engine.ops.pointwise import add, add_number, mul, scale, to
from memplan.engine.ops.views import detach, transpose, view


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of a matrix on the right."""
    return linear(a, transpose(b, 0, 1))


def trained(data: Tensor) -> Tensor:
    """``nn.Parameter(data)``: the same memory, without its history, of the layer being built."""
    p = Tensor(data.shape, data.dtype, data.storage)
    p.requires_grad, p.layer, p.copies = True, S.layer, S.copies
    return p


def get_weight_norm(weight: Tensor, lora_weight: Tensor) -> Tensor:
    """The length of each row of the adapted weight."""
    weight = add(weight, scale(lora_weight))
    return to(norms(weight, 1), weight.dtype)


class DoraLinearLayer(Module):
    """``DoraLinearLayer``: its ``weight`` is the magnitude, one number an output."""

    def __init__(self, base_layer: Linear | Embedding, lora_A: Tensor, lora_B: Tensor) -> None:
        self.weight = self.initial(base_layer, lora_A, lora_B)

    def initial(self, base_layer: Linear | Embedding, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        """``update_layer``: the norms of the weight as it is adapted at first."""
        dtype_is_fp16 = lora_A.dtype is FP16
        if dtype_is_fp16:
            lora_A = to(lora_A, FP32)
            lora_B = to(lora_B, FP32)
        if isinstance(base_layer, Linear):
            base_layer = base_layer.copied()
        weight = self.base_weight(base_layer)
        lora_weight = matmul(lora_B, lora_A)
        if dtype_is_fp16:
            lora_weight = to(lora_weight, FP16)
        weight_norm = get_weight_norm(weight, lora_weight)
        return trained(weight_norm)

    def base_weight(self, base_layer: Linear | Embedding) -> Tensor:
        """The base's weight: a row an output."""
        assert isinstance(base_layer, Linear)
        return base_layer.dequantized()

    def get_lora_weight(self, lora_A: Linear, lora_B: Linear) -> Tensor:
        """The update, made by a forward of the identity."""
        x_eye = eye(lora_A.in_features, lora_A.weight)
        lora_weight = transpose(lora_B(lora_A(x_eye)), 0, 1)
        return lora_weight

    def forward(
        self,
        x: Tensor,
        lora_A: Linear,
        lora_B: Linear,
        base_layer: Linear,
        base_result: Tensor | None = None,
    ) -> Tensor:
        """What is added to the base's result; without it (dropout) the base runs again on ``x``."""
        lora_weight = self.get_lora_weight(lora_A, lora_B)
        lora_weight = to(lora_weight, x.dtype)
        magnitude = self.weight
        weight = base_layer.dequantized()
        weight = to(weight, x.dtype)
        weight_norm = get_weight_norm(weight, detach(lora_weight))
        weight_norm = detach(weight_norm)
        mag_norm_scale = view(div(magnitude, weight_norm), (1, magnitude.shape[0]))
        lora_result = lora_B(lora_A(x))
        if base_result is None:
            base_result = linear(x, weight)
        elif base_layer.bias is not None:
            base_result = sub(base_result, base_layer.bias)
        result_dora = add(
            mul(add_number(mag_norm_scale), base_result), scale(mul(mag_norm_scale, lora_result))
        )
        return result_dora


class DoraEmbeddingLayer(DoraLinearLayer):
    """``DoraEmbeddingLayer``: a magnitude for each column of the table."""

    def base_weight(self, base_layer: Linear | Embedding) -> Tensor:
        """``transpose(weight, fan_in_fan_out=True)``."""
        return transpose(base_layer.weight, 0, 1)

    def forward(  # type: ignore[override]
        self, x: Tensor, lora_A: Tensor, lora_B: Tensor, base_layer: Embedding
    ) -> tuple[Tensor, Tensor]:
        """(what the base's result is multiplied by, what is added to it)."""
        lora_weight = transpose(matmul(lora_A, lora_B), 0, 1)
        magnitude = self.weight
        weight = base_layer.weight
        weight_norm = get_weight_norm(transpose(weight, 0, 1), detach(lora_weight))
        weight_norm = detach(weight_norm)
        mag_norm_scale = div(magnitude, weight_norm)
        result_dora = scale(mul(mag_norm_scale, matmul(embedding_op.embedding(x, lora_A), lora_B)))
        return mag_norm_scale, result_dora
