"""RoAd as PEFT runs it: pairs of outputs are rotated and scaled.

Over bitsandbytes' layers PEFT has other classes, which are not mirrored, and nor is ``road_4``.

Source: huggingface/peft v0.21.2 tuners/road/layer.py ``Linear``, ``_apply_road``.
"""

from __future__ import annotations

from memplan.engine import Tensor
from memplan.engine.nn import Linear, Module
from memplan.engine.ops.pointwise import add, mul, neg, to
from memplan.engine.ops.rotate import cos, repeat_rows, select, sin, stack_pair
from memplan.engine.ops.views import reshape, view
from memplan.engine.tensor import numel
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.tuner import TunerLayer, tune
from memplan.workload import Workload

GROUP_SIZE = 64
"""PEFT's default of ``group_size``."""


class RoadLinear(TunerLayer):
    """``peft.tuners.road.layer.Linear``: ``road_1`` has an angle a pair, ``road_2`` one each."""

    def __init__(self, base_layer: Linear, name: str, variant: str, group_size: int) -> None:
        super().__init__(base_layer)
        if self.out_features % group_size:
            raise ConfigError(
                f"peft_config: group_size: {group_size} does not divide the {self.out_features} "
                f"outputs of {name}."
            )
        size = self.out_features // 2 if variant == "road_1" else self.out_features
        self.road_theta = self.entry(size)
        self.road_alpha = self.entry(size)
        self.variant, self.half = variant, group_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        result = to(result, self.road_theta.default.dtype)
        result = self.rotated(result)
        result = to(result, torch_result_dtype)
        return result

    def rotated(self, x: Tensor) -> Tensor:
        """``_apply_road``."""
        first_col, second_col = self.columns()
        x_grouped = reshape(x, (numel(x.shape) // (2 * self.half), 2, self.half))
        x1 = select(x_grouped, 1)
        x2 = select(x_grouped, 1)
        rotate_half_x = reshape(stack_pair(neg(x2), x1), x.shape)
        result = add(mul(x, first_col), mul(rotate_half_x, second_col))
        return result

    def columns(self) -> tuple[Tensor, Tensor]:
        """``_prepare_cols``."""
        theta, alpha = self.road_theta.default, self.road_alpha.default
        if self.variant == "road_1":
            theta, alpha = self.for_both(theta), self.for_both(alpha)
        theta_cos = cos(theta)
        theta_sin = sin(theta)
        first_col = mul(alpha, theta_cos)
        second_col = mul(alpha, theta_sin)
        return first_col, second_col

    def for_both(self, t: Tensor) -> Tensor:
        """A number a pair, given to both of its halves."""
        rows = self.out_features // 2 // self.half
        return view(repeat_rows(view(t, (rows, self.half)), 2), (self.out_features,))


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``.

    Raises:
        UnsupportedError: The base is quantised.
    """
    if workload.is_quantized:
        raise UnsupportedError("method road over quantised layers is not modelled.")
    variant = workload.peft_config.get("variant", "road_1")
    group_size = workload.peft_config.get("group_size", GROUP_SIZE)
    if group_size % 2:
        raise ConfigError(f"peft_config: group_size: {group_size} is odd; RoAd rotates pairs.")

    def make(base_layer: Linear, name: str, rank: int) -> TunerLayer:
        return RoadLinear(base_layer, name, variant, group_size)

    tune(model, workload, make)
    return model
