"""A loaded model with Liger's kernels in it, as transformers puts them there.

Source: linkedin/Liger-Kernel v0.8.5 ``liger_kernel/transformers/monkey_patch.py``
``_apply_liger_kernel_to_instance``, ``model/loss_utils.py`` ``LigerForCausalLMLoss``.
"""

from __future__ import annotations

from memplan.dtypes import INT64
from memplan.engine import Tensor, alias, empty
from memplan.engine.nn import Module, RMSNorm
from memplan.engine.ops import liger
from memplan.engine.ops.arithmetic import div
from memplan.engine.ops.fused_linear import fused_linear_cross_entropy
from memplan.engine.ops.views import contiguous, view
from memplan.engine.tensor import normal
from memplan.models.llama import MLP, Attention, LlamaForCausalLM


class LigerRMSNorm(RMSNorm):
    """``LigerRMSNorm.forward`` bound to the norm that it takes the place of, which it stays."""

    def __init__(self, norm: RMSNorm) -> None:
        self.weight = norm.weight

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (..., width) -> the same shape."""
        return liger.rms_norm(hidden_states, self.weight)


class LigerMLP(Module):
    """``LigerSwiGLUMLP``, of the network that it takes the place of."""

    def __init__(self, mlp: MLP) -> None:
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, S, hidden_size)."""
        down_proj: Tensor = self.down_proj(liger.swiglu(self.gate_proj(x), self.up_proj(x)))
        return down_proj


def apply_liger(model: LlamaForCausalLM, *, layers: bool, loss: bool) -> None:
    """Replace norms, networks and the rotation of each layer, or the head and its loss, or both."""
    if layers:
        for owner in list(model.modules()):
            replace_children(owner)
    if loss:
        model.fused_loss = causal_lm_loss


def replace_children(owner: Module) -> None:
    """Liger's modules in place of a module's own norms and network."""
    for name, child in list(vars(owner).items()):
        if type(child) is RMSNorm:
            setattr(owner, name, LigerRMSNorm(child))
        elif isinstance(child, MLP):
            setattr(owner, name, LigerMLP(child))
    if isinstance(owner, Attention):
        owner.rotate = liger.rope


def causal_lm_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | None = None,
) -> Tensor:
    """``LigerForCausalLMLoss``: hidden states and head against the labels shifted by one.

    hidden_states: (B, S, hidden), weight: (V, hidden).
    """
    B, N, hidden = hidden_states.shape
    labels = empty((B, N + 1), INT64)
    shifted = alias(labels, (B, N), normal((B, N), (N + 1, 1)))  # one row: a view
    shift_labels = contiguous(shifted)
    del shifted
    hidden_states = view(hidden_states, (B * N, hidden))
    loss = fused_linear_cross_entropy(hidden_states, weight, alias(shift_labels, (B * N,)))
    if num_items_in_batch is not None:
        loss = div(loss, num_items_in_batch)
    return loss
