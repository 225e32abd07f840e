"""What is run on what: the device, the libraries, the model's parameters."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from memplan.evidence.recorder.gradients import local, parts
from memplan.evidence.recording import DeviceFacts

LIBRARIES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "adapters"),
    *("torchao", "hqq"),
)


def device_facts() -> DeviceFacts:
    """The current device, as torch sees it."""
    import torch

    p = torch.cuda.get_device_properties(torch.cuda.current_device())
    free, total = torch.cuda.mem_get_info()
    return DeviceFacts(p.name, (p.major, p.minor), total, free)


def library_versions() -> dict[str, str]:
    """The libraries that decide the numbers, those that are installed."""
    known = ((name, version_of(name)) for name in LIBRARIES)
    return {name: version for name, version in known if version is not None}


def version_of(library: str) -> str | None:
    """The version of a library, or none if it is not there."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def parameter_facts(model: Any) -> dict[str, int]:
    """Parameter counts, and the tensor data of what training would save.

    A packed 4-bit weight counts for the elements that it was packed from. Of a model with an
    adapter, what trains is saved; else all of it.
    """
    params = list(model.parameters())
    trained = [p for p in params if p.requires_grad]
    saved = saved_tensors(model) or params
    return {
        "total_parameters": sum(map(elements, params)),
        "trainable_parameters": sum(map(elements, trained)),
        "checkpoint_bytes": sum(p.numel() * p.element_size() for t in saved for p in parts(t)),
    }


def saved_tensors(model: Any) -> list[Any]:
    """What is saved of a model with an adapter, PEFT's or the ``adapters`` library's; else none."""
    if hasattr(model, "peft_config"):
        return adapter_state(model)
    if hasattr(model, "adapters_config"):
        return [t for name, t in model.state_dict().items() if ".adapters." in name]
    return []


def adapter_state(model: Any) -> list[Any]:
    """The tensors that ``save_pretrained`` writes of an adapter, each storage once."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model)
    return list({(local(t).data_ptr(), t.numel()): t for t in state.values()}.values())


def elements(parameter: Any) -> int:
    """Elements of a parameter before it was packed."""
    state = getattr(parameter, "quant_state", None)
    shape = getattr(state, "shape", None)
    if shape is not None:
        return int(shape.numel())
    return int(parameter.numel())
