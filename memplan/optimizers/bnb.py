"""bitsandbytes' optimizers: AdamW, AdEMAMix, Lion and RMSprop, in 32 or 8 bits, paged or not.

With 8 bits a state has one byte an element, and an fp32 maximum for every 256 elements. Small
parameters keep fp32 states. A step borrows nothing: the kernels work in place on one parameter
after the other.

Source:
    bitsandbytes v0.50.2 ``bitsandbytes/optim/optimizer.py`` ``Optimizer8bit.step``,
    ``Optimizer8bit.get_state_buffer``, ``Optimizer1State.init_state``,
    ``Optimizer2State.init_state``; ``optim/ademamix.py``, ``adamw.py``, ``lion.py``,
    ``rmsprop.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from memplan.dtypes import BF16, FP32, UINT8, DType
from memplan.engine.sizes import ceil_div
from memplan.engine.tensor import Shape, Tensor, empty, numel
from memplan.errors import ConfigError
from memplan.optimizers.base import Optimizer, in_layers

MIN_8BIT_SIZE = 4096
"""Parameters with fewer elements keep fp32 states (``min_8bit_size``)."""
MIN_PAGED_SIZE = 100_000
"""Parameters with fewer elements are not paged (``get_state_buffer``)."""
BLOCK_SIZE = 256
"""Elements that share one maximum (``blocksize``)."""
QMAP_SHAPE = (256,)
"""Values that one byte can stand for (``functional.create_dynamic_map``)."""


class Bnb(Optimizer):
    """``Optimizer8bit``: states are made and parameters updated one by one.

    Attributes:
        bits: Of a state's elements: 8 or 32 (``optim_bits``).
        is_paged: Large states live in managed memory, outside torch's allocator.
        min_8bit_size: Elements from which a parameter has 8-bit states.
        qmaps: What a byte stands for: the maps, which all parameters share.
        in_full: Parameters with fp32 states however large they are (``GlobalOptimManager``).
    """

    in_full: frozenset[Tensor] = frozenset()

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        bits: int,
        is_paged: bool = False,
        min_8bit_size: int = MIN_8BIT_SIZE,
    ) -> None:
        super().__init__(params)
        self.bits, self.is_paged, self.min_8bit_size = bits, is_paged, min_8bit_size
        self.qmaps: tuple[Tensor, ...] = ()

    def step(self) -> None:
        """Only a parameter's first update allocates."""
        for p in in_layers(self.with_gradient()):
            if p not in self.state:
                is_small = self.bits == 32 or numel(p.shape) < self.min_8bit_size
                is_full = is_small or p in self.in_full
                self.state[p] = self.in_32_bits(p) if is_full else self.in_8_bits(p)

    @abstractmethod
    def in_32_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """The states in fp32."""

    @abstractmethod
    def in_8_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """The states in bytes, and their maxima."""

    def need_qmaps(self, count: int) -> None:
        """The signed map, or the signed and the unsigned one, are moved to the device once."""
        if not self.qmaps:
            self.qmaps = tuple(empty(QMAP_SHAPE, FP32) for _ in range(count))

    def buffer(self, p: Tensor, dtype: DType, copies: Shape = ()) -> tuple[Tensor, ...]:
        """One state, or nothing where it is in managed memory."""
        if self.is_paged and numel(p.shape) >= MIN_PAGED_SIZE:
            return ()
        return (empty((*copies, *p.shape), dtype),)


def maxima(p: Tensor, copies: Shape = ()) -> Tensor:
    """``absmax``: one fp32 maximum for every block of a state."""
    return empty((*copies, ceil_div(numel(p.shape), BLOCK_SIZE)), FP32)


class OneState(Bnb):
    """``Optimizer1State``: Lion."""

    def in_32_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1``."""
        return self.buffer(p, FP32)

    def in_8_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1`` and ``absmax1``."""
        self.need_qmaps(1)
        state1 = self.buffer(p, UINT8)
        return *state1, maxima(p)


class RMSprop(OneState):
    """``RMSprop``, whose kernel for fp32 states takes no gradient in bfloat16.

    Source: ``backends/cuda/ops.py`` ``str2optimizer32bit``.
    """

    def in_32_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1``.

        Raises:
            ConfigError: The parameter is in bfloat16.
        """
        if p.dtype is BF16:
            raise ConfigError(
                "optimizer: bitsandbytes' RMSprop has no kernel for parameters in bfloat16 with "
                "fp32 states, which small ones have in 8 bits too ('Gradient+optimizer bit data "
                "type combination not supported'). Use rmsprop or lion_8bit, or dtype: float32."
            )
        return super().in_32_bits(p)


class TwoStates(Bnb):
    """``Optimizer2State``: AdamW."""

    def in_32_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1`` and ``state2``."""
        state1 = self.buffer(p, FP32)
        return *state1, *self.buffer(p, FP32)

    def in_8_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """Both states, then both ``absmax``."""
        self.need_qmaps(2)
        state1 = self.buffer(p, UINT8)
        state2 = self.buffer(p, UINT8)
        absmax1 = maxima(p)
        return *state1, *state2, absmax1, maxima(p)


class AdEMAMix(Bnb):
    """``AdEMAMix``: ``state1`` holds a fast and a slow average; the maxima are made first."""

    def in_32_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """``state1``, twice as large, and ``state2``."""
        state1 = self.buffer(p, FP32, (2,))
        return *state1, *self.buffer(p, FP32)

    def in_8_bits(self, p: Tensor) -> tuple[Tensor, ...]:
        """Both ``absmax``, then both states."""
        self.need_qmaps(2)
        absmax1 = maxima(p, (2,))
        absmax2 = maxima(p)
        state1 = self.buffer(p, UINT8, (2,))
        return absmax1, absmax2, *state1, *self.buffer(p, UINT8)
