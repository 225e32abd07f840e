"""What the schemes share: a linear layer that quantises its weight as it is loaded."""

from __future__ import annotations

from memplan.dtypes import FP32, DType
from memplan.engine.nn import Linear
from memplan.engine.reduction import borrow
from memplan.engine.tensor import Shape, Storage, Tensor, empty, numel


class QuantizedLinear(Linear):
    """A linear layer with a packed weight in place of a plain one's.

    ``replace_with_bnb_linear`` makes it on the meta device.

    Source: huggingface/transformers v5.18.0 integrations/bitsandbytes.py.

    Attributes:
        bits: Of bitsandbytes' layers, bits of one packed weight: what PEFT goes by. [bits]
        is_kbit: Whether ``prepare_model_for_kbit_training`` casts the rest of the model to fp32.
        weight_dtype: Dtype in which the checkpoint's weight reaches the device.
        compute_dtype: Dtype that PEFT moves adapters to.
    """

    bits: int
    is_kbit = True

    def __init__(self, plain: Linear, packed: Shape, stored: DType, compute_dtype: DType) -> None:
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight_dtype, self.compute_dtype = plain.weight.dtype, compute_dtype
        self.weight = Tensor(packed, stored, None)
        self.weight.layer, self.weight.copies = plain.weight.layer, plain.weight.copies
        self.bias = plain.bias

    @property
    def num_elements(self) -> int:
        """Elements of the weight before it is packed."""
        return self.in_features * self.out_features

    @property
    def wrapped_bytes(self) -> int:
        """What the weight's parameter holds beside the packed weight. [bytes]"""
        return 0

    @property
    def warmup_bits(self) -> int:
        """What one packed weight counts in the warm-up of the allocator. [bits]"""
        return self.bits

    def load_weight(self) -> None:
        """Allocate what the loading of this weight allocates; this module holds what stays."""
        raise NotImplementedError

    def match_bias(self, dtype: DType) -> Tensor | None:
        """``bias.data = bias.data.to(x.dtype)``: for good, at the first forward."""
        bias = self.bias
        if bias is not None and bias.dtype is not dtype:
            bias.storage = Storage(numel(bias.shape) * dtype.itemsize)
            bias.dtype = dtype
        return bias


def bias_gradient(grad: Tensor, dtype: DType) -> Tensor:
    """``grad_output.sum(0, dtype=ctx.dtype_bias)``: over the batch only.

    The engine sums the rest to the bias's shape. A gradient of another 16-bit dtype is cast first.

    Source: bitsandbytes 0.50.2 autograd/_functions.py; pytorch/pytorch v2.14.1
    aten/src/ATen/native/ReduceOpsUtils.h ``make_reduction_from_out_ty``.
    """
    out = empty(grad.shape[1:], dtype)
    cast = None if dtype in (grad.dtype, FP32) else empty(grad.shape, dtype)
    borrow(numel(grad.shape[1:]), grad.shape[0])
    del cast
    return out
