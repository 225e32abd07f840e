"""LoRA-FA's optimizer: A stays as it is, and B's gradient is projected by a pseudo-inverse of A.

It goes through the parameters by name: those of the adapter two by two, A and then B; what else
trains is updated as AdamW does it. Names of the loop keep one pair's matrices until the next one's
have been made.

Source: huggingface/peft v0.21.2 peft/optimizers/lorafa.py; pytorch/pytorch v2.14.1
``aten/src/ATen/native/LinearAlgebra.cpp`` ``linalg_pinv``.
"""

from __future__ import annotations

from memplan.dtypes import BF16, BOOL, FP32, FP64, DType, promote
from memplan.engine.nn import Module
from memplan.engine.ops.decomposition import singular_values
from memplan.engine.ops.matmul import product
from memplan.engine.state import S
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Storage, Tensor, empty
from memplan.optimizers.base import Optimizer

ADAPTER, FROZEN = "lora", "lora_A"
NATIVE_BF16 = (8, 0)
"""Below, torch makes a tensor to see whether bfloat16 is emulated."""

Names = dict[str, Tensor]


class LoraFA(Optimizer):
    """``LoraFAOptimizer``, as ``create_lorafa_optimizer`` makes it.

    Attributes:
        pairs: (A, B) of an adapter, or one other parameter, in the model's order.
        knows_bf16: Whether torch was asked for bfloat16 before.
    """

    pairs: list[tuple[Tensor, ...]]
    knows_bf16 = False

    def look_into(self, model: Module) -> None:
        """Freeze every A, and find its B."""
        self.pairs, self.params, waiting = [], [], None
        for name, _, _, p in model.named_parameters():
            if FROZEN in name:
                p.requires_grad = False
            self.params.append(p)
            if ADAPTER not in name:
                self.pairs.append((p,))
            elif waiting is None:
                waiting = p
            else:
                self.pairs.append((waiting, p))
                waiting = None

    def step(self) -> None:
        """One parameter, or pair of them, after the other."""
        names: Names = {}
        for pair in self.pairs:
            p = pair[-1]
            if p.grad is None:
                continue
            S.tape.enter(p.layer)
            if p not in self.state:
                exp_avg = empty(p.shape, p.dtype)
                self.state[p] = exp_avg, empty(p.shape, p.dtype)
                del exp_avg
            if len(pair) > 1:
                self.project(pair[0], p.grad, names)
            names["denom_B" if len(pair) > 1 else "denom"] = empty(p.shape, p.dtype)
        S.tape.enter(OUTSIDE)
        names.clear()

    def project(self, A: Tensor, grad: Tensor, names: Names) -> None:
        """``1 / scaling ** 2 * (grad @ pinv(A @ A.T + delta * I))``, the product in bfloat16."""
        names["AA_T"] = product((A.shape[0], A.shape[0]), A.dtype, A.shape[1])
        names["AA_T_inv"] = pseudo_inverse(shifted(names["AA_T"]))
        self.ask_for_bf16()
        inverse = empty(names["AA_T_inv"].shape, BF16)
        cast = empty(grad.shape, BF16) if grad.dtype is not BF16 else grad
        multiplied = product(grad.shape, BF16, A.shape[0])
        del cast, inverse
        scaled = empty(grad.shape, BF16)
        del multiplied
        names["grad_B"] = scaled
        del scaled
        if grad.dtype is not BF16:
            names["grad_B"] = empty(grad.shape, grad.dtype)

    def ask_for_bf16(self) -> None:
        """``is_bf16_available``, once a process."""
        if not self.knows_bf16 and S.kernels.compute_capability < NATIVE_BF16:
            Storage(BF16.itemsize)
        self.knows_bf16 = True


def shifted(AA_T: Tensor) -> Tensor:
    """``AA_T + delta * torch.eye(rank).to(device)``."""
    identity = empty(AA_T.shape, FP32)
    small = empty(AA_T.shape, FP32)
    del identity
    out = empty(AA_T.shape, promote(AA_T.dtype, FP32))
    del small
    return out


def pseudo_inverse(x: Tensor) -> Tensor:
    """``torch.linalg.pinv`` of a square matrix, by its singular values."""
    atol, rtol = scalar(FP64), scalar(FP64)
    U, S_, V = singular_values(x)
    scaled_rtol = scalar(FP64)
    tolerance = scalar(FP64)
    del scaled_rtol
    zero = scalar(x.dtype)
    reciprocal = empty(S_.shape, x.dtype)
    is_large = empty(S_.shape, BOOL)
    S_pseudoinv = empty(S_.shape, x.dtype)
    del is_large, reciprocal, zero
    scaled = empty(V.shape, x.dtype)
    out = product(x.shape, x.dtype, x.shape[0])
    del scaled, S_pseudoinv, tolerance, U, S_, V, atol, rtol
    return out


def scalar(dtype: DType) -> Tensor:
    """One number on the device."""
    return empty((), dtype)
