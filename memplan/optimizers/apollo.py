"""``apollo_torch.APOLLOAdamW`` as the Trainer makes it for ``apollo_adamw`` on all linear layers.

Moments of a linear layer's weight are kept of its gradient's random projection; they say only how
each channel of the gradient is scaled.

Source:
    zhuhanqing/APOLLO v1.0.3 ``apollo_torch/apollo.py`` ``AdamW.step``,
    ``apollo_torch/random_projector.py`` ``GradientProjector``;
    huggingface/transformers v5.18.0 ``trainer_optimizer.py`` ``_setup_low_rank_optimizer``.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.dtypes import BOOL, FP32
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.matmul import product
from memplan.engine.ops.pointwise import binary, unary
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Tensor, empty
from memplan.errors import ConfigError
from memplan.optimizers.base import Optimizer, in_layers
from memplan.optimizers.norm import norm, norm_over

RANK = 128
"""Of the projections, where ``optim_args`` has none."""


class APOLLOAdamW(Optimizer):
    """``proj="random", scale_type="channel", proj_type="std"``.

    Assumption: a scaled gradient's norm grows by more than 1 % from one step to the next, as on the
    virtual GPU, so that the limiter is a tensor of one number; else it is a number on the host.

    Attributes:
        rank: Of the projections.
        groups: The parameters that are not projected, and those that are.
        projections: ``ortho_matrix`` of each projected one.
        norms: ``scaled_grad`` of each projected one: the last norm of its scaled gradient.
    """

    def __init__(self, params: Iterable[Tensor], *, rank: int = RANK) -> None:
        super().__init__(params)
        self.rank = rank
        self.groups: list[list[Tensor]] = [self.params, []]
        self.projections: dict[Tensor, Tensor] = {}
        self.norms: dict[Tensor, Tensor] = {}

    def look_into(self, model: Module) -> None:
        """Project the weights of linear layers; of a tied one, its first name is another's.

        Raises:
            ConfigError: There is no linear layer.
        """
        weights = {p for _, owner, name, p in model.named_parameters() if is_weight(owner, name)}
        if not weights:
            raise ConfigError(
                "optimizer: apollo_adamw projects the weights of linear layers, and there are none "
                "('No target modules found'). Use adamw_8bit or lion."
            )
        self.groups = [
            [p for p in self.params if p not in weights],
            [p for p in self.params if p in weights],
        ]

    def step(self) -> None:
        """Group by group, one parameter after the other."""
        names = Names()
        for group, projects in zip(self.groups, (False, True), strict=True):
            for p in in_layers([p for p in group if p.grad is not None]):
                self.update(p, names, projects=projects)
        del names

    def update(self, p: Tensor, names: Names, *, projects: bool) -> None:
        """What a step does to one parameter."""
        names.grad = p.grad
        if projects:
            names.grad = self.project(p)
        self.adam(p, names)
        if projects:
            self.scale(p, names)

    def adam(self, p: Tensor, names: Names) -> None:
        """The moments of the gradient or its projection, and their quotient."""
        if p not in self.state:
            exp_avg = unary(names.grad)
            self.state[p] = exp_avg, unary(names.grad)
        names.denom = unary(names.grad)
        names.norm_grad = unary(names.grad)

    def project(self, p: Tensor) -> Tensor:
        """``GradientProjector.project``: onto the shorter side."""
        m, n = p.shape
        wide = m < n
        if p not in self.projections:
            self.projections[p] = self.random((m, self.rank) if wide else (self.rank, n), p)
        return product((self.rank, n) if wide else (m, self.rank), p.dtype, min(m, n))

    def random(self, shape: Shape, p: Tensor) -> Tensor:
        """``get_orthogonal_matrix``: made in fp32 beside a copy of the gradient in fp32."""
        if p.dtype is FP32:
            return unary(empty(shape, FP32))
        matrix = empty(p.shape, FP32)
        proj = unary(empty(shape, FP32))
        proj = unary(proj, p.dtype)
        del matrix
        return proj

    def scale(self, p: Tensor, names: Names) -> None:
        """Steps 3 and 4: the gradient times a factor for each channel, its growth limited."""
        assert names.norm_grad is not None
        assert names.grad is not None
        norm_dim = 0 if p.shape[0] < p.shape[1] else 1
        names.factor = channel_factor(names.norm_grad, names.grad, norm_dim)
        names.scaled_grad = binary(p, p)
        if p not in self.norms:
            self.norms[p] = norm(names.scaled_grad)
        else:
            names.scaled_grad_norm = norm(names.scaled_grad)
            names.limiter = limiter(names.scaled_grad_norm, self.norms[p])
            names.scaled_grad = unary(names.scaled_grad)
            self.norms[p] = unary(names.scaled_grad_norm)
        names.norm_grad = names.scaled_grad


class APOLLOAdamWLayerwise(Optimizer):
    """``apollo_adamw_layerwise``: each parameter is updated as soon as its gradient is there.

    Every parameter has an optimizer of its own, called within backward, and its gradient goes then.

    Source: ``trainer_optimizer.py`` ``_setup_low_rank_optimizer``; ``trainer_pt_utils.py``
    ``LayerWiseDummyOptimizer``.
    """

    is_in_backward = True

    def __init__(self, params: Iterable[Tensor], *, rank: int = RANK) -> None:
        super().__init__(params)
        self.inner = APOLLOAdamW(self.params, rank=rank)

    def look_into(self, model: Module) -> None:
        """Be called for every parameter that has its gradient."""
        self.inner.look_into(model)
        self.projected = frozenset(self.inner.groups[1])
        S.after_accumulate = self.update

    def update(self, leaf: Tensor) -> None:
        """A step of one parameter's optimizer, and its ``zero_grad``; other leaves have none."""
        for one in in_layers(p for p in self.params if p is leaf):
            self.inner.update(one, Names(), projects=one in self.projected)
            one.grad = None

    def step(self) -> None:
        """Nothing is left to do."""

    def zero_grad(self) -> None:
        """Nothing is left to do."""


class Names:
    """What the step's names hold from one parameter to the next."""

    grad: Tensor | None = None
    denom: Tensor | None = None
    norm_grad: Tensor | None = None
    factor: Tensor | None = None
    scaled_grad: Tensor | None = None
    scaled_grad_norm: Tensor | None = None
    limiter: Tensor | None = None


def is_weight(owner: Module, name: str) -> bool:
    """Whether an attribute is an ``nn.Linear``'s weight."""
    return isinstance(owner, Linear) and name == "weight"


def limiter(norm: Tensor, last: Tensor) -> Tensor:
    """``max(norm / (last + 1e-8), 1.01) / 1.01``."""
    growth = binary(norm, unary(last))
    unary(growth, BOOL)  # < 1.01
    return unary(growth)


def channel_factor(norm_grad: Tensor, grad: Tensor, dim: int) -> Tensor:
    """``torch.norm(norm_grad, dim) / (torch.norm(grad, dim) + 1e-8)``."""
    upper = norm_over(norm_grad, dim)
    lower = unary(norm_over(grad, dim))
    out = unary(upper)
    del upper, lower
    return out
