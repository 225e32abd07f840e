"""Which blocks became gradients of leaves: marked in torch's own history, among its events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memplan.evidence.trace import GRADIENT


def leaves(roots: Iterable[Any]) -> Iterator[Any]:
    """The leaves that a backward from these tensors reaches."""
    nodes = [root.grad_fn for root in roots if root is not None and root.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            yield node.variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)


def mark_gradients(tensors: Iterable[Any], names: Mapping[int, str]) -> None:
    """Mark the blocks of these leaves' gradients.

    Args:
        tensors: The leaves.
        names: Module of each parameter, by the parameter's ``id``.
    """
    import torch

    for leaf in tensors:
        grad = local(leaf.grad)
        if address_of(grad):
            torch.cuda.memory._annotate_tensor(grad, GRADIENT + names.get(id(leaf), ""))


def local(tensor: Any) -> Any:
    """This rank's part of a tensor that is spread over several."""
    return getattr(tensor, "_local_tensor", tensor)


def parts(tensor: Any) -> Iterator[Any]:
    """The tensors that a wrapper, such as torchao's quantised weight, is made of; else itself.

    A tensor that is spread over several ranks is none: of all its ranks, it counts as a whole.
    """
    if hasattr(tensor, "_local_tensor") or not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from parts(getattr(tensor, name))


def address_of(tensor: Any) -> int:
    """Where a tensor's block lies on the device; 0 if it has none there."""
    import torch

    tensor = local(tensor)
    if not isinstance(tensor, torch.Tensor) or not tensor.is_cuda or tensor.layout != torch.strided:
        return 0
    return int(tensor.untyped_storage().data_ptr())


def owners(model: Any, optimizers: Iterable[Any]) -> Iterator[tuple[int, str]]:
    """(address, module's name) of every parameter and buffer, and of the optimizers' states."""
    names: dict[int, str] = {}
    for module_name, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            names[id(tensor)] = module_name
            for part in parts(tensor):
                yield address_of(part), module_name
    for optimizer in optimizers:
        for parameter, states in optimizer.state.items():
            for state in states.values() if isinstance(states, dict) else ():
                yield address_of(state), names.get(id(parameter), "")
