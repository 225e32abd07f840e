"""hqq's 4-bit weights, quantised layer by layer from the host.

What training on top saves: the input of each layer, beside what the adapter keeps; both directions
dequantise the whole weight, in up to three copies of it.

The search for zero points goes on while its error falls, so values decide how often it turns. As on
the virtual GPU, it turns once; on real values a second turn holds 4 more bytes a weight of the one
layer, while loading.

Source: hqq 0.2.8 core/quantize.py ``Quantizer``, ``HQQLinear``, ``HQQMatmulNoCacheMul``;
core/optimize.py ``optimize_weights_proximal_legacy``; core/bitpack.py; models/base.py
``BaseHQQModel.quantize_model``. Its README: ``AutoHQQHFModel.quantize_model(model, config,
compute_dtype=..., device="cuda")`` of a model that is on the host.
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.dtypes import BOOL, FP16, FP32, UINT8
from memplan.engine.autograd import PyNode, needs_grad
from memplan.engine.nn import Linear
from memplan.engine.ops.matmul import linear, product
from memplan.engine.ops.views import reshape_raw
from memplan.engine.reduction import borrow_over
from memplan.engine.state import S, no_grad
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel
from memplan.errors import ConfigError
from memplan.quantization.base import QuantizedLinear

GROUP_SIZE = 64


class HQQLinear(QuantizedLinear):
    """``HQQLinear``: nibbles, and a scale and a zero point a group in the dtype of computing.

    A bias is no parameter of it.
    """

    is_kbit = False
    dispatch = "hqq"

    def __init__(self, plain: Linear, group_size: int = GROUP_SIZE) -> None:
        n = plain.in_features * plain.out_features
        groups = n // group_size
        if n % group_size or groups % 2:
            raise ConfigError(
                f"quantization hqq-4bit: {plain.out_features} x {plain.in_features} weights are no "
                f"even number of groups of {group_size}, which hqq packs in pairs."
            )
        super().__init__(plain, (groups // 2, group_size), UINT8, plain.weight.dtype)
        self.num_groups, self.group_size = groups, group_size
        self.own_bias, self.bias = (self.bias,), None
        self.meta: tuple[Tensor, Tensor] | None = None

    @property
    def num_elements(self) -> int:
        """Of the packed weight: PEFT counts hqq's bytes, each two weights."""
        return self.in_features * self.out_features // 2

    def load_weight(self) -> None:
        """``HQQLinear.initialize``: search on the device, round on the host, bring it back."""
        self.search()
        S.tape.empty_cache()
        self.weight.storage = Storage(numel(self.weight.shape))
        shape = self.num_groups, 1
        self.meta = empty(shape, self.weight_dtype), empty(shape, self.weight_dtype)
        S.tape.empty_cache()
        bias = self.own_bias[0]
        if bias is not None:
            bias.storage = Storage(numel(bias.shape) * bias.dtype.itemsize)
            S.tape.empty_cache()

    def search(self) -> None:
        """``optimize_weights_proximal_legacy``, in fp16."""
        w_shape, g_shape = (self.num_groups, self.group_size), (self.num_groups, 1)
        w_f, scale, zero = empty(w_shape, FP16), empty(g_shape, FP16), empty(g_shape, FP16)
        best_error = Storage(FP32.itemsize)
        w_r, w_q, zero = search_step(w_shape, g_shape)
        current_error = mean_error(w_shape)
        is_less = Storage(BOOL.itemsize)
        del is_less, scale, zero, w_f, w_q, w_r, best_error, current_error

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        bias = self.own_bias[0]
        if not needs_grad(x):
            with no_grad():
                return self.matmul(x)
        shape = x.shape

        def backward(grad: Tensor) -> tuple[Tensor]:
            return (input_gradient(grad, shape, self),)

        node = PyNode((x,), (), backward)
        with no_grad():
            out = self.matmul(x)
        return node.finish(out, (x,) if bias is None else (x, bias))

    def matmul(self, x: Tensor) -> Tensor:
        """``torch.matmul(x, self.dequantize().t())``; a bias is added in place."""
        weight = self.dequantized()
        return linear(x, weight)

    def dequantized(self) -> Tensor:
        """``Quantizer.dequantize``: nibbles into one tensor, less the zero point, times the scale.

        Source: ``BitPack.unpack_4bit_u8``.
        """
        dtype = self.weight_dtype
        shape = self.num_groups, self.group_size
        W_r = empty(shape, dtype)
        masked = empty(self.weight.shape, UINT8)
        shifted = empty(self.weight.shape, UINT8)
        del masked, shifted
        masked = empty(self.weight.shape, UINT8)
        del masked
        centred = empty(shape, dtype)
        scaled = empty(shape, dtype)
        del centred, W_r
        return Tensor((self.out_features, self.in_features), dtype, scaled.storage)


def search_step(w_shape: Shape, g_shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """``optimize_weights_proximal_legacy_step``: (W_r, W_q, zero)."""

    def new() -> Tensor:
        return empty(w_shape, FP16)

    scaled = new()
    shifted = new()
    del scaled
    W_q = new()
    del shifted
    centred = new()
    W_r = new()
    del centred
    difference = new()
    W_e = shrink(new)
    del difference
    a = new()
    b = new()
    del a
    c = new()
    del b
    zero = empty(g_shape, FP16)
    del c, W_e
    return W_r, W_q, zero


def shrink(new: Callable[[], Tensor]) -> Tensor:
    """``shrink_lp_op`` with ``lp_norm`` below 1."""
    out = new()
    power = new()
    threshold = new()
    del power, threshold
    sign = new()
    del sign
    return out


def mean_error(w_shape: Shape) -> Storage:
    """``torch.abs(W_f - W_r).mean().float()``."""
    difference = empty(w_shape, FP16)
    absolute = empty(w_shape, FP16)
    del difference
    mean = Storage(FP16.itemsize)
    borrow_over(Tensor((numel(w_shape),), FP16, None), (0,))
    del absolute
    out = Storage(FP32.itemsize)
    del mean
    return out


def input_gradient(grad: Tensor, shape: Shape, layer: HQQLinear) -> Tensor:
    """``torch.matmul(grad_output, self.dequantize())``."""
    weight = layer.dequantized()
    if grad.strides is not None:
        grad = reshape_raw(grad, (numel(grad.shape[:-1]), grad.shape[-1]))
    out = product(shape, grad.dtype, layer.out_features)
    del weight
    return out
