"""``torch.optim.Muon`` for the matrices of hidden layers, ``torch.optim.AdamW`` for the rest.

Muon takes matrices only, and torch's documentation gives biases, embeddings and all else to AdamW:
so does the run, one after the other.

Source:
    pytorch/pytorch v2.14.1 ``torch/optim/_muon.py`` ``_single_tensor_muon``,
    ``_zeropower_via_newtonschulz``.
"""

from __future__ import annotations

from memplan.dtypes import BF16
from memplan.engine.nn import Embedding, Module
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import unary
from memplan.engine.tensor import Tensor, empty
from memplan.optimizers.adamw import AdamWForeach
from memplan.optimizers.base import Optimizer, in_layers
from memplan.optimizers.norm import norm

NS_STEPS = 5
"""Newton-Schulz iterations (``DEFAULT_NS_STEPS``)."""


class Muon(Optimizer):
    """Both optimizers.

    Attributes:
        matrices: What Muon updates.
        adamw: The optimizer of all others.
    """

    def look_into(self, model: Module) -> None:
        """Part the parameters: matrices, but for embeddings and what makes the logits."""
        others = {
            p
            for name, owner, _, p in model.named_parameters()
            if isinstance(owner, Embedding) or "lm_head" in name or len(p.shape) != 2
        }
        self.matrices = [p for p in self.params if p not in others]
        self.adamw = AdamWForeach(p for p in self.params if p in others)

    def step(self) -> None:
        """``Muon.step``: all momenta, then matrix by matrix; then ``AdamW.step``."""
        matrices = [p for p in self.matrices if p.grad is not None]
        for p in in_layers(matrices):
            if p not in self.state:
                self.state[p] = (empty(p.shape, p.dtype),)
        update = None
        for p in in_layers(matrices):
            update = empty(p.shape, p.dtype)  # grad.lerp(buf, momentum)
            update = zero_power(update)
        del update
        self.adamw.step()


def zero_power(grad: Tensor) -> Tensor:
    """``_zeropower_via_newtonschulz``: of a matrix in bf16, as wide as it is high or wider.

    Each product is made before its name lets go of the last.
    """
    rows, columns = sorted(grad.shape)
    ortho_grad = grad if grad.dtype is BF16 else unary(grad, BF16)
    unary(norm(ortho_grad))  # clamp
    gram_matrix = gram_update = None
    for _ in range(NS_STEPS):
        gram_matrix = product((rows, rows), BF16, columns)
        gram_update = product((rows, rows), BF16, rows)
        ortho_grad = product((rows, columns), BF16, rows)
    del gram_matrix, gram_update
    return ortho_grad
