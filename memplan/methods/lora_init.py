"""Initialisations of LoRA that take the base weight apart on the device: PiSSA and OLoRA.

What cuSOLVER borrows is not known (``memplan.engine.ops.decomposition``): the true peak of loading
is higher by that.

Source: huggingface/peft v0.21.2 tuners/lora/layer.py ``pissa_init``, ``olora_init``.
"""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine.nn import Linear
from memplan.engine.ops.decomposition import orthogonal_factor, singular_values
from memplan.engine.ops.matmul import product
from memplan.engine.tensor import Tensor, empty, restrided

PISSA, OLORA, ORTHOGONAL = "pissa", "olora", "orthogonal"


def pissa(base_layer: Linear, rank: int) -> tuple[Tensor, Tensor]:
    """(A, B) of the largest singular values, in fp32; the base keeps the rest, in a new block."""
    old = base_layer.weight
    (m, n), dtype = old.shape, old.dtype
    weight = old if dtype is FP32 else empty(old.shape, FP32)
    V, S, Uh = singular_values(weight)
    diagonal = roots(rank)
    lora_A = product((rank, n), FP32, rank)
    del diagonal
    diagonal = roots(rank)
    lora_B = product((m, rank), FP32, rank)
    del diagonal
    scaled = empty(lora_B.shape, FP32)
    update = product((m, n), FP32, rank)
    del scaled
    residual = empty((m, n), FP32)
    del update
    weight = residual
    del residual
    if dtype is not FP32:
        weight = empty((m, n), dtype)
    old.storage = weight.storage
    del weight, V, S, Uh
    return lora_A, lora_B


def roots(rank: int) -> Tensor:
    """``torch.diag(torch.sqrt(S))``."""
    root = empty((rank,), FP32)
    diagonal = empty((rank, rank), FP32)
    del root
    return diagonal


def olora(base_layer: Linear, rank: int) -> tuple[Tensor, Tensor]:
    """(A, B) of the first columns of Q and rows of R, in fp32; the base loses them in place."""
    old = base_layer.weight
    (m, n), dtype = old.shape, old.dtype
    weight = old if dtype is FP32 else empty(old.shape, FP32)
    Q, R = orthogonal_factor(weight)
    lora_A = empty((rank, n), FP32)
    # A single column of Q, whose columns lie one after the other, is not copied.
    lora_B = restrided(Q, (m, 1), None) if rank == 1 else empty((m, rank), FP32)
    scaled = empty(lora_B.shape, FP32)
    update = product((m, n), FP32, rank)
    del update, scaled
    if dtype is not FP32:
        weight = empty((m, n), dtype)
        old.storage = weight.storage
    del weight, Q, R
    return lora_A, lora_B


DECOMPOSED = {PISSA: pissa, OLORA: olora}
"""Initialisations that change the base weight, and what makes (A, B) of it."""
