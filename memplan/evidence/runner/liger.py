"""Liger's kernels in a loaded model, as transformers puts them there for ``use_liger_kernel``."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def apply_liger(w: Json, model: Any) -> None:
    """Patch the model for ``kernels: liger`` and ``loss: fused_linear``.

    Source: huggingface/transformers v5.18.0 integrations/liger.py ``apply_liger_kernel``.

    Raises:
        ImportError: liger-kernel is not installed.
    """
    layers, fused = w["kernels"] == "liger", w["loss"] == "fused_linear"
    if not (layers or fused):
        return
    from memplan.evidence.runner import triton

    triton.install()
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    config: Json = {"rope": layers, "rms_norm": layers, "swiglu": layers}
    config |= {"cross_entropy": False, "fused_linear_cross_entropy": fused}
    _apply_liger_kernel_to_instance(model=model, **config)
