"""VB-LoRA as PEFT runs it: LoRA's matrices are mixtures of vectors from a bank that all share.

Source: huggingface/peft v0.21.2 tuners/vblora/layer.py, tuners/vblora/model.py.
"""

from __future__ import annotations

from typing import Any

from memplan.dtypes import BOOL
from memplan.engine import S, Tensor
from memplan.engine.nn import Linear, Module, parameter
from memplan.engine.ops.contraction import softmax
from memplan.engine.ops.einsum import sum_middle
from memplan.engine.ops.linalg import linear
from memplan.engine.ops.pointwise import add, dropout, mul, to
from memplan.engine.ops.topk import rows_of, splits_rows, topk
from memplan.engine.ops.views import reshape, transpose, unsqueeze
from memplan.engine.reduction import borrow_over
from memplan.engine.tensor import empty
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.tuner import TunerLayer, require_targets, tune
from memplan.workload import Workload

NUM_VECTORS, VECTOR_LENGTH, TOPK = 256, 256, 2
"""PEFT's defaults."""
MODEL_TYPES = ("llama", "llama4", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3")
"""Of those that memplan knows, the ones with default targets.

Source: peft/utils/constants.py ``TRANSFORMERS_MODELS_TO_VBLORA_TARGET_MODULES_MAPPING``.
"""


class Bank(Module):
    """The one tensor of the model's ``vblora_vector_bank``: each layer makes it anew."""

    default: Any

    def __init__(self, num_vectors: int, vector_length: int) -> None:
        self.shape = num_vectors, vector_length
        self.default = None


class VBLoraLinear(TunerLayer):
    """``peft.tuners.vblora.layer.Linear``."""

    def __init__(self, base_layer: Linear, rank: int, bank: Bank, k: int, p: float) -> None:
        super().__init__(base_layer)
        bank.default = None
        num_vectors, length = bank.shape
        self.vblora_logits_A = self.entry(rank, self.in_features // length, num_vectors)
        self.vblora_logits_B = self.entry(self.out_features // length, rank, num_vectors)
        bank.default = parameter(bank.shape, base_layer.compute_dtype)
        self.vblora_vector_bank = bank
        self.topk, self.dropout = k, p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        A, B = self.matrices()
        x = to(x, self.vblora_vector_bank.default.dtype)
        result = add(result, linear(linear(dropout(x, self.dropout), A), B))
        result = to(result, previous_dtype)
        return result

    def matrices(self) -> tuple[Tensor, Tensor]:
        """``_get_lora_matrices``: (r, in) and (out, r)."""
        logits_A, logits_B = self.vblora_logits_A.default, self.vblora_logits_B.default
        if S.training:
            look_for_infinity(logits_A)
        rank = logits_A.shape[0]
        A = reshape(self.mixed(logits_A), (rank, self.in_features))
        B = reshape(transpose(self.mixed(logits_B), 1, 2), (self.out_features, rank))
        return A, B

    def mixed(self, logits: Tensor) -> Tensor:
        """``_get_low_rank_matrix``."""
        top_k_logits, indices = topk(logits, self.topk)
        topk_weights = softmax(top_k_logits)
        rows = rows_of(self.vblora_vector_bank.default, indices)
        weighted = mul(unsqueeze(topk_weights, 3), rows)
        del rows
        return sum_middle(weighted)


def look_for_infinity(logits: Tensor) -> None:
    """``logits[0, 0].isinf().any()``."""
    magnitudes = empty(logits.shape[2:], logits.dtype)
    is_infinite = empty(logits.shape[2:], BOOL)
    del magnitudes
    any_is = empty((), BOOL)
    borrow_over(is_infinite, (0,))
    del is_infinite, any_is


def check(layer: Linear, name: str, rank: int, bank: Bank, k: int) -> None:
    """What PEFT and ``topk`` refuse, and what is not modelled.

    Raises:
        ConfigError: The vectors do not fit the layer.
        UnsupportedError: There are so many that finding the largest borrows memory.
    """
    num_vectors, length = bank.shape
    for what, n in (("inputs", layer.in_features), ("outputs", layer.out_features)):
        if n % length:
            raise ConfigError(
                f"peft_config: vector_length: {length} does not divide the {n} {what} of {name}."
            )
        if splits_rows(rank * (n // length), num_vectors):
            raise UnsupportedError(
                f"peft_config: num_vectors: {num_vectors} is not modelled for {name}; fewer are."
            )
    if k > num_vectors:
        raise ConfigError(f"peft_config: topk: {k} is above num_vectors, {num_vectors}.")


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method vblora over quantised layers is not modelled.")
    require_targets(model, workload, MODEL_TYPES)
    o = workload.peft_config
    bank = Bank(o.get("num_vectors", NUM_VECTORS), o.get("vector_length", VECTOR_LENGTH))
    k, p = o.get("topk", TOPK), o.get("vblora_dropout", 0.0)

    def make(base_layer: Linear, name: str, _: int) -> TunerLayer:
        check(base_layer, name, workload.rank, bank, k)
        return VBLoraLinear(base_layer, workload.rank, bank, k, p)

    tune(model, workload, make)
    return model
