"""Bottleneck adapters, as the ``adapters`` library adds them to a loaded model.

The library makes an adapter on the host and in fp32; its documentation moves it with
``adapter_to``. Without autocast a 16-bit model takes none in fp32 (torch: mat1 and mat2 must have
the same dtype), so there the adapter gets the model's dtype, as with ``adapter_dtype: base``.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NAME = "bottleneck"
KIND = "config"
DEFAULT_KIND = "seq_bn"


def add_bottleneck_adapter(w: Json, model: Any) -> Any:
    """The model with an adapter in each layer, which alone trains."""
    import adapters
    import torch

    adapters.init(model)
    model.add_adapter(NAME, config=configuration(w))
    model.train_adapter(NAME)
    device = torch.device("cuda", torch.cuda.current_device())
    model.adapter_to(NAME, device=device, dtype=model.dtype if is_cast(w) else None)
    return model


def configuration(w: Json) -> Any:
    """The library's own configuration of that name, with what ``peft_config`` changes of it."""
    import adapters

    options = dict(w["peft_config"])
    kind = options.pop(KIND, DEFAULT_KIND)
    return adapters.AdapterConfig.load(kind, **options)


def is_cast(w: Json) -> bool:
    """Whether the adapter gets the model's dtype."""
    return bool(w["adapter_dtype"] == "base" or w["autocast"] == "none")
