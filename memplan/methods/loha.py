"""LoHa as PEFT runs it: the update is the product, element by element, of two low-rank matrices.

Source: huggingface/peft v0.21.2 tuners/loha/layer.py, tuners/lycoris_utils.py.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.linalg import linear, matmul
from memplan.engine.ops.pointwise import Meta, add, mul, scale, to
from memplan.engine.ops.views import reshape, transposed
from memplan.engine.state import no_grad
from memplan.errors import ConfigError
from memplan.methods.tuner import TunerLayer, bits_of, tune
from memplan.workload import Workload


class LycorisLinear(TunerLayer):
    """``LycorisLayer`` over a linear layer: a weight is made and multiplied by."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        previous_dtype = x.dtype
        result = self.base_layer(x)
        result = add(result, self.delta_activations(x))
        result = to(result, previous_dtype)
        return result

    def delta_activations(self, x: Tensor) -> Tensor:
        """``_get_delta_activations``."""
        delta_weight = self.delta_weight()
        x = to(x, delta_weight.dtype)
        return linear(x, delta_weight)

    def delta_weight(self) -> Tensor:
        """``get_delta_weight``."""
        raise NotImplementedError


class LoHaLinear(LycorisLinear):
    """``peft.tuners.loha.layer.Linear``."""

    def __init__(self, base_layer: Linear, rank: int) -> None:
        super().__init__(base_layer)
        self.hada_w1_a = self.entry(self.out_features, rank)
        self.hada_w1_b = self.entry(rank, self.in_features)
        self.hada_w2_a = self.entry(self.out_features, rank)
        self.hada_w2_b = self.entry(rank, self.in_features)

    def delta_weight(self) -> Tensor:
        """``HadaWeight``, and a view."""
        weight = hada_weight(
            self.hada_w1_a.default,
            self.hada_w1_b.default,
            self.hada_w2_a.default,
            self.hada_w2_b.default,
        )
        weight = reshape(weight, (self.out_features, self.in_features))
        return weight


def hada_weight(w1a: Tensor, w1b: Tensor, w2a: Tensor, w2b: Tensor) -> Tensor:
    """``((w1a @ w1b) * (w2a @ w2b)) * scale``; both products are made again in backward."""
    if not needs_grad(w1a, w1b, w2a, w2b):
        return hada_product(w1a, w1b, w2a, w2b)
    metas = [Meta(t) for t in (w1a, w1b, w2a, w2b)]

    def backward(grad_out: Tensor) -> tuple[Tensor, ...]:
        m1a, m1b, m2a, m2b = (Tensor(m.shape, m.dtype, None, m.strides) for m in metas)
        grad_out = scale(grad_out)
        temp = mul(grad_out, matmul(m2a, m2b))
        grad_w1a = matmul(temp, transposed(m1b, 0, 1))
        grad_w1b = matmul(transposed(m1a, 0, 1), temp)
        temp = mul(grad_out, matmul(m1a, m1b))
        grad_w2a = matmul(temp, transposed(m2b, 0, 1))
        grad_w2b = matmul(transposed(m2a, 0, 1), temp)
        del temp
        return grad_w1a, grad_w1b, grad_w2a, grad_w2b

    node = PyNode((w1a, w1b, w2a, w2b), (w1a, w1b, w2a, w2b), backward)
    with no_grad():
        out = hada_product(w1a, w1b, w2a, w2b)
    return node.finish(out)


def hada_product(w1a: Tensor, w1b: Tensor, w2a: Tensor, w2b: Tensor) -> Tensor:
    """``HadaWeight.forward``."""
    diff_weight = scale(mul(matmul(w1a, w1b), matmul(w2a, w2b)))
    return diff_weight


def refuse_4bit(base_layer: Linear, name: str, method: str) -> None:
    """PEFT takes a packed weight's shape for the layer's, and the forward fails.

    Raises:
        ConfigError: The layer is packed.
    """
    if bits_of(base_layer) == 4:
        raise ConfigError(
            f"method {method} does not go with 4-bit layers ({name}): PEFT takes the packed "
            "weight's shape for the layer's, and its forward fails. Use int8 or no quantization."
        )


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``."""

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        refuse_4bit(base_layer, name, "loha")
        return LoHaLinear(base_layer, rank)

    tune(model, workload, make)
    return model
