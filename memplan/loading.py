"""Loading a model onto the device: the order in which its parameters are allocated.

Models are built on the meta device, as ``from_pretrained`` builds them; here they get their
storage. The order decides where blocks lie, so what the allocator can reuse later.

Source: huggingface/transformers v5.18.0 modeling_utils.py, core_model_loading.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from memplan.engine.nn import Module
from memplan.engine.state import S
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Storage, Tensor, numel
from memplan.models.rope import RotaryEmbedding
from memplan.quantization import replace_linears
from memplan.quantization.base import QuantizedLinear

GIB = 1 << 30
WARMUP_MARGIN = 1.2 * GIB
"""What the warm-up leaves free of a device. [bytes]"""


def load(model: Module, quantization: str = "none", total_memory: int | None = None) -> None:
    """Give a model that was built on the meta device its memory, as ``from_pretrained`` does.

    Args:
        model: The model; its linear layers are replaced if they are quantised.
        quantization: The workload's key.
        total_memory: What the device says it has. [bytes]
    """
    if quantization != "none":
        replace_linears(model, quantization)
    load_pretrained(model, total_memory)


class Entry(NamedTuple):
    """One parameter of the checkpoint."""

    name: str
    owner: Module
    tensor: Tensor

    @property
    def is_quantized(self) -> bool:
        """Whether it is packed on the way."""
        return isinstance(self.owner, QuantizedLinear) and self.tensor is self.owner.weight

    @property
    def bits(self) -> int:
        """What all its copies count in the warm-up. [bits]"""
        if self.is_quantized:
            assert isinstance(self.owner, QuantizedLinear)
            return self.owner.num_elements * self.owner.bits * self.tensor.copies
        return 8 * numel(self.tensor.shape) * self.tensor.dtype.itemsize * self.tensor.copies

    def load(self) -> None:
        """Allocate it, as its layer's."""
        S.tape.enter(self.tensor.layer)
        if self.is_quantized:
            assert isinstance(self.owner, QuantizedLinear)
            self.owner.load_weight()
        else:
            materialize(self.tensor)


def materialize(t: Tensor) -> None:
    """A block for a parameter that was made on the meta device."""
    t.storage = Storage(numel(t.shape) * t.dtype.itemsize)


def entries(model: Module) -> Iterator[Entry]:
    """The checkpoint's parameters; a tied head is not among them."""
    for name, owner, _, tensor in model.named_parameters():
        yield Entry(name, owner, tensor)


def load_pretrained(model: Module, total_memory: int | None = None) -> None:
    """``from_pretrained`` on one device: a warm-up block, parameters by name, rotary buffers.

    Quantised weights are packed as they come, one after the other. Others are read by a pool of
    threads, whose order is not fixed: a small tensor may overtake a large one. Inferred: the order
    does not matter to requested and allocated bytes, because large blocks are all cut from the one
    of the warm-up and small ones are always split; reserved bytes can differ by a segment of 2 MiB
    for small models, and did in no recorded run.

    Args:
        model: Built on the meta device.
        total_memory: What the device says it has; without it the warm-up is not held back. [bytes]

    Source:
        ``_load_pretrained_model``, ``convert_and_load_state_dict_in_model``,
        ``_move_missing_keys_from_meta_to_device``.
    """
    checkpoint = list(entries(model))
    warm_up(checkpoint, total_memory)
    for entry in sorted(checkpoint, key=lambda e: natural_key(e.name)):
        entry.load()
    S.tape.enter(OUTSIDE)
    for module in model.modules():
        if isinstance(module, RotaryEmbedding):
            module.materialize()


def warm_up(checkpoint: list[Entry], total_memory: int | None) -> None:
    """``caching_allocator_warmup``: an fp16 tensor as large as the model, dropped at once.

    Nothing is reserved when a run starts, so no part of it is there already.
    """
    byte_count = sum(e.bits for e in checkpoint) / 8
    if total_memory is not None:
        byte_count = min(byte_count, total_memory - WARMUP_MARGIN)
    Storage(int(byte_count // 2) * 2)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """``dot_natural_key``: numbers by value and before words."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]
