"""How many parameters a model has, and how many bytes a checkpoint of the training holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from memplan.engine.nn import Module
from memplan.engine.tensor import Tensor, numel
from memplan.method_table import BY_NAME
from memplan.quantization.base import QuantizedLinear
from memplan.results import Parameters


class Counted(NamedTuple):
    """One parameter, with the identical ones of repeated layers.

    Attributes:
        elements: As the model has them before packing. [elements]
        nbytes: Of their tensor data. [bytes]
        trains: Whether the optimizer updates it.
    """

    elements: int
    nbytes: int
    trains: bool


def count_all(model: Module) -> Iterator[Counted]:
    """Every parameter of the full model."""
    for _, owner, _, p in model.named_parameters():
        yield Counted(
            elements(owner, p) * p.copies,
            tensor_bytes(owner, p) * p.copies,
            p.requires_grad,
        )


def tensor_bytes(owner: Module, p: Tensor) -> int:
    """Tensor data of a parameter; of one that wraps several tensors, of all of them. [bytes]"""
    nbytes = numel(p.shape) * p.dtype.itemsize
    if isinstance(owner, QuantizedLinear) and p is owner.weight:
        nbytes += owner.wrapped_bytes
    return nbytes


def elements(owner: Module, p: Tensor) -> int:
    """Elements of a parameter; of a packed weight, those it was packed from."""
    if isinstance(owner, QuantizedLinear) and p is owner.weight:
        return owner.num_elements
    return numel(p.shape)


def count_parameters(model: Module) -> Parameters:
    """Total and trainable parameters."""
    counted = list(count_all(model))
    return Parameters(
        sum(c.elements for c in counted), sum(c.elements for c in counted if c.trains)
    )


def checkpoint_bytes(model: Module, method: str) -> int:
    """Tensor data that ``save_pretrained`` writes. [bytes]

    Of the model itself, all of it; of an adapter of PEFT, what trains, but for what its modules
    leave out, and what they save beside it.
    """
    instead = model.saved_instead()
    if instead is not None:
        return instead
    if not BY_NAME[method].of_peft:
        return sum(c.nbytes for c in count_all(model))
    trained = sum(c.nbytes for c in count_all(model) if c.trains)
    beside = (t for module in model.modules() for t in module.saved_beside())
    left_out = (t for module in model.modules() for t in module.unsaved() if t.requires_grad)
    return trained + _nbytes(beside) - _nbytes(left_out)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    """Of all, with the identical ones of repeated layers. [bytes]"""
    return sum(numel(t.shape) * t.dtype.itemsize * t.copies for t in tensors)
