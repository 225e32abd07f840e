"""``torch.amp.GradScaler("cuda")``, for autocast in float16.

A handful of scalars; but each takes a block of its own, and they stand between larger ones.

Source:
    pytorch/pytorch v2.14.1 ``torch/amp/grad_scaler.py``;
    ``aten/src/ATen/native/cuda/AmpKernels.cu``.
"""

from __future__ import annotations

from memplan.dtypes import BF16, FP16, FP32, FP64, INT32
from memplan.engine.ops.pointwise import mul
from memplan.engine.tensor import Tensor, empty
from memplan.errors import ConfigError
from memplan.optimizers.base import Optimizer


class GradScaler:
    """The scale, and whether an infinity was found since the last update.

    Attributes:
        scalars: ``_scale`` and ``_growth_tracker``, made when a loss is first scaled.
        found_inf: The copy of ``found_inf`` on the gradients' device: there from the check until
            ``update``.
    """

    def __init__(self) -> None:
        self.scalars: tuple[Tensor, ...] = ()
        self.found_inf: Tensor | None = None

    def scale(self, loss: Tensor) -> Tensor:
        """``outputs * scale``."""
        if not self.scalars:
            scale = empty((), FP32)
            self.scalars = scale, empty((), INT32)
        return mul(loss, self.scalars[0])

    def unscale_(self, optimizer: Optimizer | None) -> None:
        """Divide the gradients by the scale: its inverse is taken in double precision.

        Raises:
            ConfigError: torch refuses these gradients, or there is no optimizer to ask for them.
        """
        if optimizer is None:
            raise ConfigError(
                "optimizer: none does not go with autocast float16 and gradient clipping: "
                "GradScaler.unscale_ asks the optimizer for the gradients. Set max_grad_norm: 0."
            )
        refuse_in_backward(optimizer)
        refuse_float16(optimizer)
        double = empty((), FP64)
        reciprocal = empty((), FP64)
        del double
        inv_scale = empty((), FP32)
        del reciprocal
        found_inf = empty((), FP32)
        self.check(optimizer)
        del found_inf, inv_scale

    def check(self, optimizer: Optimizer) -> None:
        """``_unscale_grads_``: copies of both scalars for the device; the kernel works in place.

        Raises:
            ConfigError: A gradient is in bfloat16, for which the kernel does not exist.
        """
        refuse_bfloat16(optimizer)
        found_inf, inv_scale = empty((), FP32), empty((), FP32)
        del inv_scale
        self.found_inf = found_inf

    def step(self, optimizer: Optimizer) -> None:
        """The optimizer's step, on gradients that were unscaled, here or by the step itself."""
        refuse_in_backward(optimizer)
        if optimizer.takes_scale:
            self.step_with_scale(optimizer)
            return
        if self.found_inf is None:
            self.unscale_(optimizer)
        optimizer.step()

    def step_with_scale(self, optimizer: Optimizer) -> None:
        """Fused optimizers take ``grad_scale`` and ``found_inf``, each the result of an operation.

        Gradients that ``unscale_`` has seen need no scale, and no further check.
        """
        is_ready = self.found_inf is None
        if is_ready:
            dummy_inv_scale, dummy_found_inf = empty((), FP32), empty((), FP32)
            self.check(optimizer)
            del dummy_inv_scale, dummy_found_inf
        found_inf = empty((), FP32)  # sum() starts at 0: 0 + found_inf
        grad_scale = empty((), FP32) if is_ready else None
        optimizer.step()
        del grad_scale, found_inf

    def update(self) -> None:
        """Adjust the scale in place and forget what was found."""
        self.found_inf = None


def refuse_in_backward(optimizer: Optimizer) -> None:
    """What ``step`` raises as an ``AssertionError``: ``_unscale_grads_`` saw no gradient."""
    if optimizer.is_in_backward:
        raise ConfigError(
            "autocast: float16 does not go with an optimizer that works within backward: torch "
            "raises 'No inf checks were recorded for this optimizer'. Use autocast: bfloat16."
        )


def refuse_float16(optimizer: Optimizer) -> None:
    """What ``unscale_`` raises as a ``ValueError``."""
    if any(p.dtype is FP16 for p in optimizer.with_gradient()):
        raise ConfigError(
            "autocast: float16 does not go with trainable parameters in float16: torch raises "
            "'Attempting to unscale FP16 gradients'. Use dtype: float32, or adapters in float32; "
            "or adamw_fused without gradient clipping, which unscales by itself."
        )


def refuse_bfloat16(optimizer: Optimizer) -> None:
    """``_amp_foreach_non_finite_check_and_unscale_`` dispatches over double, float and half.

    Inferred: torch 2.14.1 raises ``NotImplementedError`` on the virtual GPU.
    """
    if any(p.dtype is BF16 for p in optimizer.with_gradient()):
        raise ConfigError(
            "autocast: float16 does not go with trainable parameters in bfloat16: torch raises "
            "'_amp_foreach_non_finite_check_and_unscale_cuda' not implemented for 'BFloat16'. "
            "Use dtype: float32, adapters in float32, or autocast: bfloat16."
        )
