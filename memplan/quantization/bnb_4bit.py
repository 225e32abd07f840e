"""bitsandbytes' 4-bit weights: nf4 and fp4, with and without double quantisation.

Nothing is saved for backward: both directions dequantise the whole weight, or forward runs in a
kernel that reads it packed.

Source: bitsandbytes 0.50.2 nn/modules.py ``Linear4bit``, ``Params4bit``; autograd/_functions.py
``MatMul4Bit``; functional.py ``quantize_4bit``; backends/cuda/ops.py.
"""

from __future__ import annotations

from copy import copy

from memplan.dtypes import FP32, UINT8
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear
from memplan.engine.ops.matmul import linear, product
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import contiguous, reshape_raw
from memplan.engine.reduction import borrow_full
from memplan.engine.sizes import ceil_div
from memplan.engine.state import S, count_flops, no_grad
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel
from memplan.quantization.base import QuantizedLinear, bias_gradient
from memplan.quantization.gemm_4bit import uses_fused_kernel

BLOCK = 64
"""Weights that share one absmax."""
NESTED_BLOCK = 256
"""Absmax values that share one absmax of their own."""
CODE = 16 * FP32.itemsize
DYNAMIC_CODE = 256 * FP32.itemsize


class CodeCache:
    """``functional.name2qmap``: the 8-bit code of nested statistics, made once a process."""

    def __init__(self) -> None:
        self.dynamic: Storage | None = None

    def ensure(self) -> None:
        """Make the code at its first use."""
        if self.dynamic is None:
            here = S.tape.origin
            S.tape.enter(OUTSIDE)
            self.dynamic = Storage(DYNAMIC_CODE)
            S.tape.enter(here)


class QuantState:
    """``QuantState`` of one weight: what stays on the device beside the packed weight.

    Attributes:
        blocks: Blocks of 64 weights.
        absmax: Statistics: fp32, or uint8 where they are quantised themselves.
        code: The 16 values of the data type, once for each weight.
        nested: (offset, absmax, code) of double quantisation, or none.
    """

    __slots__ = ("absmax", "blocks", "code", "nested")

    def __init__(self, absmax: Storage, blocks: int) -> None:
        self.absmax, self.blocks = absmax, blocks
        self.code = make_code()
        self.nested: tuple[Storage, Storage, Storage] | None = None

    def compress(self, codes: CodeCache) -> None:
        """``compress_statistics``: mean, difference, then 8 bits in blocks of 256."""
        offset = Storage(FP32.itemsize)
        borrow_full(self.blocks, FP32.itemsize)
        shifted = Storage(self.blocks * FP32.itemsize)
        codes.ensure()
        absmax = Storage(ceil_div(self.blocks, NESTED_BLOCK) * FP32.itemsize)
        quantized = Storage(self.blocks)
        self.nested = offset, absmax, Storage(DYNAMIC_CODE)
        del shifted
        self.absmax = quantized

    def copied(self) -> QuantState:
        """``copy.deepcopy``."""
        made = copy(self)
        made.absmax, made.code = clone(self.absmax), clone(self.code)
        if self.nested is not None:
            offset, absmax, code = self.nested
            made.nested = clone(offset), clone(absmax), clone(code)
        return made


def clone(storage: Storage) -> Storage:
    """A storage of the same size."""
    return Storage(storage.nbytes)


def make_code() -> Storage:
    """``get_4bit_type``: a code divided by its largest magnitude."""
    code = Storage(CODE)
    absolute = Storage(CODE)
    largest = Storage(FP32.itemsize)
    del absolute, largest
    return code


class Linear4bit(QuantizedLinear):
    """``bitsandbytes.nn.Linear4bit`` with ``compute_dtype`` equal to the checkpoint's dtype.

    Attributes:
        codes: The process's cache of codes if statistics are quantised too, else none.
    """

    bits = 4
    state: QuantState
    quant_state: QuantState

    def __init__(self, plain: Linear, codes: CodeCache | None) -> None:
        n = plain.in_features * plain.out_features
        super().__init__(plain, (ceil_div(n, 2), 1), UINT8, plain.weight.dtype)
        self.codes = codes

    def load_weight(self) -> None:
        """The weight arrives, absmax, packed nibbles and the code are made, then it goes."""
        n = self.num_elements
        blocks = ceil_div(n, BLOCK)
        loaded = Storage(n * self.weight_dtype.itemsize)
        absmax = Storage(blocks * FP32.itemsize)
        self.weight.storage = Storage(ceil_div(n, 2))
        self.state = QuantState(absmax, blocks)
        if self.codes is not None:
            self.state.compress(self.codes)
        del absmax, loaded

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features), in the dtype of ``x``."""
        inp_dtype = x.dtype
        x = to(x, self.compute_dtype)
        bias = self.match_bias(x.dtype)
        return to(matmul_4bit(x, self, bias), inp_dtype)

    def copied(self) -> Linear4bit:
        """``copy.deepcopy``: the statistics twice, as the weight's and as the layer's own.

        Source: bitsandbytes 0.50.2 nn/modules.py ``Params4bit.__deepcopy__``, ``_quantize``.
        """
        made = copy(self)
        made.state = self.state.copied()
        made.weight = empty(self.weight.shape, self.weight.dtype)
        made.bias = None if self.bias is None else empty(self.bias.shape, self.bias.dtype)
        made.quant_state = self.state.copied()
        return made

    def dequantized(self) -> Tensor:
        """``dequantize_4bit`` of the weight."""
        if self.state.nested is not None:
            absmax = empty((self.state.blocks,), FP32)  # the offset is added in place
        weight = empty((self.out_features, self.in_features), self.weight_dtype)
        if self.state.nested is not None:
            del absmax
        return weight


def matmul_4bit(a: Tensor, layer: Linear4bit, bias: Tensor | None) -> Tensor:
    """``MatMul4Bit``, or the bare product where no gradient is wanted."""
    if not (needs_grad(a) or (bias is not None and needs_grad(bias))):
        return gemm_4bit(a, layer, bias)
    shape, wants_a = a.shape, a.requires_grad
    inputs = (a,) if bias is None else (a, bias)
    bias_dtype = bias.dtype if bias is not None and bias.requires_grad else None

    def backward(grad: Tensor) -> tuple[Tensor | None, ...]:
        g_bias = bias_gradient(grad, bias_dtype) if bias_dtype is not None else None
        return (input_gradient(grad, shape, layer) if wants_a else None), g_bias

    node = PyNode(inputs, (), backward)
    with no_grad():
        out = gemm_4bit(a, layer, bias)
    return node.finish(out)


def gemm_4bit(a: Tensor, layer: Linear4bit, bias: Tensor | None) -> Tensor:
    """``bitsandbytes::gemm_4bit``: the fused kernel, or dequantise and ``F.linear``."""
    n, k = layer.out_features, layer.in_features
    if uses_fused_kernel(numel(a.shape[:-1]), n, k, a.dtype, S.kernels):
        a = contiguous(a)
        count_flops(2, *a.shape, n)
        return empty((*a.shape[:-1], n), a.dtype)
    if layer.state.nested is not None:
        dequantized = empty((layer.state.blocks,), FP32)
        absmax = empty((layer.state.blocks,), FP32)  # plus the offset
    weight = empty((n, k), a.dtype)
    out = linear(a, weight, bias)
    if layer.state.nested is not None:
        del dequantized, absmax
    return out


def input_gradient(grad: Tensor, shape: Shape, layer: Linear4bit) -> Tensor:
    """``torch.matmul(grad_output, F.dequantize_4bit(B, ctx.state).to(grad_output.dtype))``."""
    weight = layer.dequantized()
    weight = to(weight, grad.dtype)
    if grad.strides is not None:
        grad = reshape_raw(grad, (numel(grad.shape[:-1]), grad.shape[-1]))
    return product(shape, grad.dtype, layer.out_features)
