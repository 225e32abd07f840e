"""bitsandbytes' LLM.int8(): int8 weights with a scale a row, int8 activations for each product.

The activation is kept for backward whole, in its own dtype, and as an attribute of the function's
context: checkpointing's hooks do not see it, and it lives until the loss does. Which columns hold
outliers depends on values; as on the virtual GPU, there are none.

Source: bitsandbytes 0.50.2 nn/modules.py ``Linear8bitLt``, ``Int8Params``; autograd/_functions.py
``MatMul8bitLt``; backends/cuda/ops.py, backends/default/ops.py.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, FP16, FP32, INT8, INT32, DType
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear
from memplan.engine.ops.matmul import linear, product
from memplan.engine.ops.views import reshape_raw
from memplan.engine.reduction import borrow_full
from memplan.engine.state import count_flops, no_grad
from memplan.engine.tensor import Shape, Storage, Tensor, alias, empty, numel
from memplan.quantization.base import QuantizedLinear, bias_gradient


class Linear8bitLt(QuantizedLinear):
    """``bitsandbytes.nn.Linear8bitLt`` with ``has_fp16_weights=False`` and ``threshold=6.0``.

    PEFT finds an integer weight and leaves adapters in the dtype in which they were made, fp32.
    """

    bits = 8
    scales: Storage

    def __init__(self, plain: Linear) -> None:
        super().__init__(plain, (plain.out_features, plain.in_features), INT8, FP32)

    def load_weight(self) -> None:
        """The weight arrives, goes to the host, comes back in fp16 and is quantised row by row."""
        n = self.num_elements
        loaded = Storage(n * self.weight_dtype.itemsize)
        half = Storage(n * FP16.itemsize)
        self.scales = Storage(self.out_features * FP32.itemsize)
        self.weight.storage = Storage(n)
        del half, loaded

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features), in the dtype of ``x``."""
        bias = self.match_bias(x.dtype)
        return matmul_8bit(x, self, bias)

    def dequantized(self) -> Tensor:
        """``int8_vectorwise_dequant``: weights times scales, then times 1 / 127, in fp32.

        Source: bitsandbytes 0.50.2 _ops.py.
        """
        scaled = empty(self.weight.shape, FP32)
        weight = empty(self.weight.shape, FP32)
        del scaled
        return weight


def matmul_8bit(a: Tensor, layer: Linear8bitLt, bias: Tensor | None) -> Tensor:
    """``MatMul8bitLt``; the context keeps the activation if it needs a gradient."""
    if not (needs_grad(a) or (bias is not None and needs_grad(bias))):
        with no_grad():
            return forward_8bit(reshape_raw(a, rows_of(a)), a.shape, layer)
    shape, dtype, wants_a = a.shape, a.dtype, a.requires_grad
    inputs = (a,) if bias is None else (a, bias)
    bias_dtype = bias.dtype if bias is not None and bias.requires_grad else None

    def backward(grad: Tensor) -> tuple[Tensor | None, ...]:
        g_bias = bias_gradient(grad, bias_dtype) if bias_dtype is not None else None
        return (input_gradient(grad, shape, dtype, layer) if wants_a else None), g_bias

    node = PyNode(inputs, (), backward)
    with no_grad():
        a = reshape_raw(a, rows_of(a))
        out = forward_8bit(a, shape, layer)
    if wants_a:
        node.context = a.storage
    return node.finish(out)


def rows_of(a: Tensor) -> Shape:
    """The shape of an activation as a matrix."""
    return numel(a.shape[:-1]), a.shape[-1]


def forward_8bit(a: Tensor, shape: Shape, layer: Linear8bitLt) -> Tensor:
    """Quantise the rows, multiply in int32, scale back: fp16 first, then the input's dtype.

    A bias is fused or added in place.
    """
    quantized, stats = quantize_rows(a)
    total = int8_linear_matmul(quantized, layer)
    half = empty(total.shape, FP16)
    out = half if a.dtype is FP16 else empty(total.shape, a.dtype)
    del half, total, quantized, stats
    return alias(out, (*shape[:-1], layer.out_features))


def quantize_rows(a: Tensor) -> tuple[Tensor, Tensor]:
    """``int8_vectorwise_quant``: (int8 rows, their scales), after a look for outliers."""
    half = a if a.dtype is FP16 else empty(a.shape, FP16)
    stats = empty(a.shape[:1], FP32)
    quantized = empty(a.shape, INT8)
    absolute = empty(a.shape, FP16)
    outliers = empty(a.shape, BOOL)
    del absolute
    found = Storage(BOOL.itemsize)
    borrow_full(numel(a.shape), BOOL.itemsize)
    del found
    if a.shape[0] > 1:
        zero = Storage(INT8.itemsize)  # quantized[:, outlier_cols] = 0
        del zero
    del outliers, half
    return quantized, stats


def int8_linear_matmul(quantized: Tensor, layer: Linear8bitLt) -> Tensor:
    """The int8 product of cublasLt, or one in fp32 where rows are not a multiple of 4 long."""
    out = empty((quantized.shape[0], layer.out_features), INT32)
    if not layer.in_features % 4:
        count_flops(2, *out.shape, layer.in_features)
    if layer.in_features % 4:
        activation = empty(quantized.shape, FP32)
        weight = empty(layer.weight.shape, FP32)
        result = linear(activation, weight)
        del activation, weight
        rounded = empty(out.shape, INT32)
        del result, rounded
    return out


def input_gradient(grad: Tensor, shape: Shape, dtype: DType, layer: Linear8bitLt) -> Tensor:
    """Dequantise the weight in the input's dtype, multiply, view in the input's shape."""
    if grad.strides is not None:
        grad = reshape_raw(grad, rows_of(grad))
        if grad.strides is not None:
            grad = empty(grad.shape, grad.dtype)
    weight = empty((layer.out_features, layer.in_features), dtype)
    scales = empty((layer.out_features, 1), FP32)  # SCB / 127
    del scales
    if grad.dtype is not dtype:
        grad = empty(grad.shape, dtype)
    out = product((numel(shape[:-1]), shape[-1]), dtype, layer.out_features)
    del weight
    return alias(out, shape)
