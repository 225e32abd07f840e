"""torchao's weight-only schemes: int8 and fp8, with a scale a row or a scale a group.

What training on top saves: a product keeps its frozen weight for the input's gradient, and here
that weight is the one that was just dequantised. So every layer's weight stands in full precision
from its forward to its backward, unless activations are recomputed: what quantising saves at rest
comes back in training.

Source: torchao 0.18.0 quantization/quantize_/workflows/int8/int8_tensor.py ``Int8Tensor``,
float8/float8_tensor.py ``Float8Tensor``, quantization/quant_primitives.py; huggingface/transformers
v5.18.0 integrations/torchao.py ``TorchAoQuantize``.
"""

from __future__ import annotations

from memplan.dtypes import FP8, FP32, INT8, DType
from memplan.engine.nn import Linear
from memplan.engine.ops.inplace import add_to_view
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import add, mul, to
from memplan.engine.ops.views import reshape
from memplan.engine.tensor import Storage, Tensor, empty, numel
from memplan.errors import ConfigError
from memplan.quantization.base import QuantizedLinear


class TorchaoLinear(QuantizedLinear):
    """``torch.nn.Linear`` whose weight is a tensor of torchao's.

    PEFT moves adapters to the dtype that the tensor pretends to have, the checkpoint's.

    Attributes:
        group_size: Elements of a row that share a scale. [elements]
        scales: The scales, fp32.
    """

    is_kbit = False
    scales: Storage

    def __init__(self, plain: Linear, stored: DType, group_size: int | None) -> None:
        shape = plain.out_features, plain.in_features
        super().__init__(plain, shape, stored, plain.weight.dtype)
        self.group_size = group_size or plain.in_features
        if plain.in_features % self.group_size:
            raise ConfigError(
                f"quantization: {plain.in_features} in_features are no multiple of the group size "
                f"{self.group_size}, which torchao wants; take another one, or none."
            )

    @property
    def num_scales(self) -> int:
        """Groups of the whole weight."""
        return self.num_elements // self.group_size

    @property
    def warmup_bits(self) -> int:
        """``TorchAoHfQuantizer.param_element_size``: a byte."""
        return 8

    @property
    def wrapped_bytes(self) -> int:
        """The scales."""
        return self.num_scales * FP32.itemsize

    @property
    def is_grouped(self) -> bool:
        """Whether a row has more than one scale."""
        return bool(self.group_size < self.in_features)


class Int8Linear(TorchaoLinear):
    """``Int8WeightOnlyConfig``: symmetric; the zero points, all zero, are kept all the same."""

    zero_points: Storage

    def __init__(self, plain: Linear, group_size: int | None = None) -> None:
        super().__init__(plain, INT8, group_size)

    @property
    def wrapped_bytes(self) -> int:
        """The scales and the zero points."""
        return self.num_scales * (FP32.itemsize + INT8.itemsize)

    def load_weight(self) -> None:
        """``Int8Tensor.from_hp``."""
        n = self.num_elements
        loaded = Storage(n * self.weight_dtype.itemsize)
        self.choose_scales()
        reciprocal = Storage(self.num_scales * FP32.itemsize)
        inverse = Storage(self.num_scales * FP32.itemsize)  # 1.0 times it
        del reciprocal
        scaled = Storage(n * FP32.itemsize)
        del inverse
        rounded = Storage(n * FP32.itemsize)
        del scaled
        shifted = Storage(n * FP32.itemsize)
        del rounded
        clamped = Storage(n * FP32.itemsize)
        del shifted
        self.weight.storage = Storage(n)
        del clamped, loaded

    def choose_scales(self) -> None:
        """``choose_qparams_affine``, in the weight's dtype until it returns."""
        nbytes = self.num_scales * self.weight_dtype.itemsize
        min_val, max_val = Storage(nbytes), Storage(nbytes)
        zeros = Storage(nbytes)
        min_val_neg = Storage(nbytes)
        zeros = None  # type: ignore[assignment]
        zeros = Storage(nbytes)
        max_val_pos = Storage(nbytes)
        del zeros
        negated = Storage(nbytes)
        max_val_pos = Storage(nbytes)
        del negated
        scale = Storage(nbytes)
        zero_point = Storage(nbytes)
        scale = Storage(nbytes)  # clamped
        self.scales = scale if self.weight_dtype is FP32 else Storage(2 * nbytes)
        self.zero_points = Storage(self.num_scales)
        del min_val, max_val, min_val_neg, max_val_pos, scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features), in the dtype of ``x``."""
        output_dtype = x.dtype
        local, y = self.by_groups(x) if self.is_grouped else self.by_rows(x)
        shape = (*x.shape[:-1], self.out_features)
        y = reshape(y, shape) if self.bias is None else add_to_view(y, shape, self.bias)
        y = to(y, output_dtype)
        del local  # as the one function of torchao's ends
        return y

    def by_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product with the bare int8 values, cast; and that product with its columns scaled."""
        weight = empty(self.weight.shape, x.dtype)
        m = linear(reshape(x, (numel(x.shape[:-1]), x.shape[-1])), weight)
        del weight
        kept = self.scales if m.dtype is FP32 else Storage(self.num_scales * m.dtype.itemsize)
        return m, mul(m, Tensor((self.num_scales,), m.dtype, kept))

    def by_groups(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The dequantised weight, and the product with it."""
        w_dequant = to(self.dequantized(), x.dtype)
        return w_dequant, linear(reshape(x, (numel(x.shape[:-1]), x.shape[-1])), w_dequant)

    def dequantized(self) -> Tensor:
        """``dequantize_affine``, to the checkpoint's dtype."""
        shape, dtype = self.weight.shape, self.weight_dtype
        dequant = empty(shape, dtype)
        zero_point = Storage(self.num_scales * dtype.itemsize)
        shifted = empty(shape, dtype)
        del zero_point
        dequant = shifted
        del shifted
        dequant = empty(shape, FP32)
        return to(dequant, dtype)


class Float8Linear(TorchaoLinear):
    """``Float8WeightOnlyConfig``: e4m3."""

    def __init__(self, plain: Linear, group_size: int | None = None) -> None:
        super().__init__(plain, FP8, group_size)

    def load_weight(self) -> None:
        """``Float8Tensor.from_hp``."""
        n, itemsize = self.num_elements, self.weight_dtype.itemsize
        loaded = Storage(n * itemsize)
        absolute = Storage(n * itemsize)
        max_abs = Storage(self.num_scales * itemsize)
        del absolute
        scale = Storage(self.num_scales * itemsize)
        is_fp32 = self.weight_dtype is FP32
        self.scales = scale if is_fp32 else Storage(self.num_scales * FP32.itemsize)
        del max_abs, scale
        single = loaded if is_fp32 else Storage(n * FP32.itemsize)
        expanded = self.expand_scales()
        scaled = Storage(n * FP32.itemsize)
        clamped = Storage(n * FP32.itemsize)
        self.weight.storage = Storage(n)
        del single, expanded, scaled, clamped, loaded

    def expand_scales(self) -> Storage | None:
        """``repeat_interleave`` of the scales of groups; those of rows are broadcast."""
        return Storage(self.num_elements * FP32.itemsize) if self.is_grouped else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        weight = self.dequantized()
        out = linear(x, weight)
        del weight
        return out if self.bias is None else add(out, self.bias)

    def dequantized(self) -> Tensor:
        """``_dequantize_affine_float8``, to the checkpoint's dtype."""
        fp8_tensor = empty(self.weight.shape, FP32)
        scale_expanded = self.expand_scales()
        hp_tensor = empty(self.weight.shape, FP32)
        out = to(hp_tensor, self.weight_dtype)
        del fp8_tensor, scale_expanded, hp_tensor
        return out
