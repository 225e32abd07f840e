"""Loading a model onto the device: the order in which its parameters are allocated.

Models are built on the meta device, as ``from_pretrained`` builds them; here they get their
storage. The order decides where blocks lie, so what the allocator can reuse later.

Source: huggingface/transformers v5.18.0 modeling_utils.py, core_model_loading.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from memplan.engine.nn import Linear, Module
from memplan.engine.state import S
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Storage, Tensor, numel
from memplan.models.rope import RotaryEmbedding
from memplan.quantization import replace_linears
from memplan.quantization.base import QuantizedLinear

GIB = 1 << 30
WARMUP_MARGIN = 1.2 * GIB
"""What the warm-up leaves free of a device. [bytes]"""


def load(
    model: Module,
    quantization: str = "none",
    total_memory: int | None = None,
    versions: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Give a model that was built on the meta device its memory, as ``from_pretrained`` does.

    Args:
        model: The model; its linear layers are replaced if they are quantised.
        quantization: The workload's key.
        total_memory: What the device says it has. [bytes]
        versions: Libraries that are not of today.
    """
    if quantization != "none":
        replace_linears(model, quantization, versions.get("bitsandbytes", ""))
    if quantization.startswith("hqq"):
        load_from_host(model)
    elif getattr(model, "release", None) is not None:
        load_pretrained_v4(model, total_memory, is_quantized=quantization != "none")
    else:
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
            return self.owner.num_elements * self.owner.warmup_bits * self.tensor.copies
        return 8 * numel(self.tensor.shape) * self.tensor.dtype.itemsize * self.tensor.copies

    @property
    def full_bytes(self) -> int:
        """What all its copies take before they are packed. [bytes]"""
        if self.is_quantized:
            assert isinstance(self.owner, QuantizedLinear)
            return self.owner.num_elements * self.owner.weight_dtype.itemsize * self.tensor.copies
        return numel(self.tensor.shape) * self.tensor.dtype.itemsize * self.tensor.copies

    def load_v4(self) -> None:
        """As ``load``; what bitsandbytes packs to four bits was moved to the device before."""
        S.tape.enter(self.tensor.layer)
        moved = None
        if self.is_quantized:
            assert isinstance(self.owner, QuantizedLinear)
            if self.owner.bits == 4:
                moved = Storage(self.owner.num_elements * self.owner.weight_dtype.itemsize)
        self.load()
        del moved

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


def load_pretrained_v4(model: Module, total_memory: int | None, *, is_quantized: bool) -> None:
    """``from_pretrained`` of transformers v4.57: one by one, in the order of the names.

    The warm-up leaves out what could be tied, tied or not; of a quantised model it takes half.

    Source: huggingface/transformers v4.57.6 modeling_utils.py ``caching_allocator_warmup``,
    ``_load_state_dict_into_meta_model``; safetensors: a file's keys are sorted.
    """
    checkpoint = sorted(entries(model), key=lambda e: e.name)
    counted = [e for e in checkpoint if e.name != "lm_head.weight"]
    byte_count = sum(e.full_bytes for e in counted)
    if total_memory is not None:
        byte_count = min(byte_count, max(0, int(total_memory - WARMUP_MARGIN)))
    Storage(byte_count // (4 if is_quantized else 2) * 2)
    for entry in checkpoint:
        entry.load_v4()
    S.tape.enter(OUTSIDE)
    for module in model.modules():
        if isinstance(module, RotaryEmbedding):
            module.materialize()


def load_from_host(model: Module) -> None:
    """What hqq does to a model on the host: all that is not linear goes to the device first.

    The rotary buffers go there in the dtype of computing.

    Source: hqq 0.2.8 models/base.py ``BasePatch.patch_model``.
    """
    modules = [m for m in model.modules() if next(m.named_children(), None) is None]
    for module in modules:
        if isinstance(module, RotaryEmbedding):
            module.buffer_dtype = next(model.parameters()).dtype
            module.materialize()
        elif not isinstance(module, Linear):
            bring(module)
    S.tape.enter(OUTSIDE)
    S.tape.empty_cache()
    for module in modules:
        if isinstance(module, QuantizedLinear):
            S.tape.enter(module.weight.layer)
            module.load_weight()
        elif isinstance(module, Linear):
            bring(module)
    S.tape.enter(OUTSIDE)
    S.tape.empty_cache()


def bring(module: Module) -> None:
    """``module.to(device)``; a parameter that another module brought is there already."""
    for p in vars(module).values():
        if isinstance(p, Tensor) and p.storage is None:
            S.tape.enter(p.layer)
            materialize(p)
