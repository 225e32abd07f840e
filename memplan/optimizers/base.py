"""What all optimizers share: which parameters they update, in what order, and what they keep.

State is made lazily, at the first step in which a parameter has a gradient, so a parameter that
never gets one never costs any. Only what lives in torch's allocator is here; steps counted on the
host and managed memory are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from memplan.dtypes import DType
from memplan.engine.nn import Module
from memplan.engine.state import S
from memplan.engine.tensor import Tensor, empty


class Optimizer(ABC):
    """One ``torch.optim.Optimizer`` with a single group of parameters.

    Attributes:
        takes_scale: Whether the step itself divides by a GradScaler's scale
            (``_step_supports_amp_scaling``).
        is_in_backward: Whether parameters are updated within backward, and not by the step.
        host_scalars: Numbers on the host, of each parameter, that are made with the optimizer.
        params: Trainable parameters, in the model's order.
        state: What is kept for each parameter that was ever updated.
    """

    host_scalars: ClassVar[int] = 0
    takes_scale: ClassVar[bool] = False
    is_in_backward: ClassVar[bool] = False

    def __init__(self, params: Iterable[Tensor]) -> None:
        self.params = list(params)
        self.state: dict[Tensor, tuple[Tensor, ...]] = {}

    def look_into(self, model: Module) -> None:  # noqa: B027
        """Learn of the model which parameters are updated how, where that makes a difference."""

    @abstractmethod
    def step(self) -> None:
        """Update the parameters that have a gradient."""

    def step_groups(self, groups: Iterable[list[Tensor]]) -> None:
        """Update groups of parameters, one after the other; names are dropped between them."""
        for group in groups:
            self.params = group
            self.step()

    def with_gradient(self) -> list[Tensor]:
        """The parameters that a step updates."""
        return [p for p in self.params if p.grad is not None]

    def zero_grad(self) -> None:
        """``zero_grad(set_to_none=True)``."""
        for p in in_layers(self.params):
            p.grad = None


def in_layers(params: Iterable[Tensor]) -> Iterator[Tensor]:
    """The parameters one by one, with what happens meanwhile put down to each one's layer."""
    tape = S.tape
    before = tape.origin
    for p in params:
        tape.enter(p.layer)
        yield p
    tape.enter(before)


def like(params: Iterable[Tensor]) -> list[Tensor]:
    """What a foreach function that is not in place returns: a tensor for each parameter."""
    return [empty(p.shape, p.dtype) for p in in_layers(params)]


def count(params: Iterable[Tensor]) -> int:
    """How many parameters these stand for, repeated layers included."""
    return sum(p.copies for p in params)


def by_dtype(params: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters grouped as the foreach functions group them: the dtype seen last comes first.

    The groups are a C++ ``unordered_map``. libstdc++ puts a key that falls into an empty bucket at
    the front; of 13 buckets, the hashes of (device 0, dtype) take number 8 for float16, 9 for
    float32 and 5 for bfloat16.

    Source:
        pytorch/pytorch v2.14.1 ``aten/src/ATen/native/ForeachUtils.h``
        ``_group_tensors_by_first_tensors_device_and_dtype``,
        ``aten/src/ATen/native/utils/ParamsHash.h``; libstdc++ ``bits/hashtable.h``
        ``_M_insert_bucket_begin``.
    """
    groups: dict[DType, list[Tensor]] = {}
    for p in params:
        groups.setdefault(p.dtype, []).append(p)
    return list(groups.values())[::-1]
