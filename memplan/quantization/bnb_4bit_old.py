"""bitsandbytes' 4-bit layers of old, before 0.43.3: each kept the activation that it was given.

It is an attribute of the function's context, so checkpointing's hooks do not see it, and it lives
until the loss does. The layer computes in the dtype of the first activation, whatever
``bnb_4bit_compute_dtype`` says: fp32 where norms were cast up. Every forward dequantises; 0.42
stored weights as if they had been fp16, so there the weight is cast once more.

Modelled from source, under today's other libraries, which refuse so old a release: nothing here was
compared with a run of it.

Source: bitsandbytes 0.42.0 and 0.43.1 autograd/_functions.py ``MatMul4Bit``, nn/modules.py
``Linear4bit``, ``Params4bit``, functional.py ``quantize_4bit``, ``dequantize_4bit``.
"""

from __future__ import annotations

from memplan.dtypes import FP16, DType
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import to
from memplan.engine.state import no_grad
from memplan.engine.tensor import Tensor
from memplan.quantization.base import bias_gradient
from memplan.quantization.bnb_4bit import CodeCache, Linear4bit, input_gradient


class OldLinear4bit(Linear4bit):
    """``bitsandbytes.nn.Linear4bit`` of 0.43.1."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features), in the dtype of ``x``."""
        bias = self.match_bias(x.dtype)
        inp_dtype = x.dtype
        compute_dtype = self.compute_dtype if inp_dtype is FP16 else inp_dtype
        x = to(x, compute_dtype)
        bias = None if bias is None else to(bias, compute_dtype)
        return to(matmul_4bit(x, self, bias), inp_dtype)


class HalfLinear4bit(OldLinear4bit):
    """That of 0.42.0: ``Params4bit.cuda`` makes every weight fp16 before it is packed."""

    def __init__(self, plain: Linear, codes: CodeCache | None) -> None:
        super().__init__(plain, codes)
        self.weight_dtype = FP16


def matmul_4bit(a: Tensor, layer: OldLinear4bit, bias: Tensor | None) -> Tensor:
    """``MatMul4Bit.apply``; without gradients, a single row goes to a kernel of its own."""
    if not (needs_grad(a) or (bias is not None and needs_grad(bias))):
        with no_grad():
            return product(a, layer, bias)
    shape, wants_a = a.shape, a.requires_grad
    inputs = (a,) if bias is None else (a, bias)
    bias_dtype: DType | None = bias.dtype if bias is not None and bias.requires_grad else None

    def backward(grad: Tensor) -> tuple[Tensor | None, ...]:
        g_bias = bias_gradient(grad, bias_dtype) if bias_dtype is not None else None
        return (input_gradient(grad, shape, layer) if wants_a else None), g_bias

    node = PyNode(inputs, (), backward)
    with no_grad():
        out = product(a, layer, bias)
    if wants_a:
        node.context = a.storage
    return node.finish(out)


def product(a: Tensor, layer: OldLinear4bit, bias: Tensor | None) -> Tensor:
    """``F.linear(A, F.dequantize_4bit(B, quant_state).to(A.dtype).t(), bias)``.

    Assumption: a single row without gradient, which a kernel reads packed, is multiplied like more
    of them; no training step has one.
    """
    weight = to(layer.dequantized(), a.dtype)
    return linear(a, weight, bias)
