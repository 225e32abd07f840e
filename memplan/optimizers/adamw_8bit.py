"""bitsandbytes' ``AdamW8bit`` and ``PagedAdamW8bit``.

Two states of one byte an element, and two fp32 maxima for every 256 elements. Small parameters keep
fp32 states. A step borrows nothing: the kernels work in place on one parameter after the other.

Source:
    bitsandbytes v0.50.2 ``bitsandbytes/optim/optimizer.py`` ``Optimizer8bit.step``,
    ``Optimizer8bit.get_state_buffer``, ``Optimizer2State.init_state``; ``optim/adamw.py``.
"""

from __future__ import annotations

from typing import ClassVar

from memplan.dtypes import FP32, UINT8, DType
from memplan.engine.sizes import ceil_div
from memplan.engine.tensor import Tensor, empty, numel
from memplan.optimizers.base import Optimizer, in_layers

MIN_8BIT_SIZE = 4096
"""Parameters with fewer elements keep fp32 states (``min_8bit_size``)."""
MIN_PAGED_SIZE = 100_000
"""Parameters with fewer elements are not paged (``get_state_buffer``)."""
BLOCK_SIZE = 256
"""Elements that share one maximum (``blocksize``)."""
QMAP_SHAPE = (256,)
"""Values that one byte can stand for (``functional.create_dynamic_map``)."""


class AdamW8bit(Optimizer):
    """``bnb.optim.AdamW8bit(params, lr)``: states are made and parameters updated one by one.

    Attributes:
        is_paged: Large states live in managed memory, outside torch's allocator.
        qmaps: The signed and the unsigned map, which all parameters share.
    """

    is_paged: ClassVar[bool] = False
    qmaps: tuple[Tensor, ...] = ()

    def step(self) -> None:
        """Only a parameter's first update allocates."""
        for p in in_layers(self.with_gradient()):
            if p not in self.state:
                self.state[p] = self.new_state(p)

    def new_state(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1`` and ``state2``; with 8 bits, also ``absmax1`` and ``absmax2``."""
        n = numel(p.shape)
        if n < MIN_8BIT_SIZE:
            return self.new_buffers(p, FP32)
        if not self.qmaps:
            signed = empty(QMAP_SHAPE, FP32)
            self.qmaps = signed, empty(QMAP_SHAPE, FP32)
        states = self.new_buffers(p, UINT8)
        blocks = ceil_div(n, BLOCK_SIZE)
        absmax1 = empty((blocks,), FP32)
        return *states, absmax1, empty((blocks,), FP32)

    def new_buffers(self, p: Tensor, dtype: DType) -> tuple[Tensor, ...]:
        """Both states, as far as they are in torch's allocator."""
        if self.is_paged and numel(p.shape) >= MIN_PAGED_SIZE:
            return ()
        state1 = empty(p.shape, dtype)
        return state1, empty(p.shape, dtype)


class PagedAdamW8bit(AdamW8bit):
    """``bnb.optim.PagedAdamW8bit(params, lr)``: ``cudaMallocManaged`` for the larger states."""

    is_paged = True
