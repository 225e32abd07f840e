"""What comes before the first step: the model, loaded and adapted."""

from __future__ import annotations

from typing import Any

from memplan.engine import S
from memplan.engine.repeat import Depth
from memplan.loading import load
from memplan.methods.catalogue import apply_method
from memplan.models.catalogue import build_model
from memplan.models.config import ModelConfig
from memplan.models.liger import apply_liger
from memplan.quantization import prepare_model_for_kbit_training
from memplan.workload import Workload


def prepare(workload: Workload, config: ModelConfig, depth: Depth, total_memory: int | None) -> Any:
    """The model, loaded and adapted."""
    model = build_model(config, workload, depth)
    load(model, workload.quantization, total_memory, workload.versions)
    layers, loss = workload.kernels == "liger", workload.loss == "fused_linear"
    if layers or loss:
        apply_liger(model, layers=layers, loss=loss)
    S.tape.end_phase("load")
    if workload.prepares_kbit:
        prepare_model_for_kbit_training(model)
    apply_checkpointing(model, workload)
    adapted = apply_method(model, workload)
    S.tape.watch(model)
    S.tape.end_phase("adapter")
    return adapted


def apply_checkpointing(model: Any, workload: Workload) -> None:
    """``gradient_checkpointing_enable``, which always asks for input gradients.

    In transformers v4.57 it does not; the loop does, but for a quantised model leaves it to PEFT's
    ``prepare_model_for_kbit_training``, which asks only for reentrant checkpointing.

    Source: huggingface/transformers v5.18.0 and v4.57.6 modeling_utils.py
    ``gradient_checkpointing_enable``; huggingface/peft v0.21.2 utils/other.py.
    """
    if workload.activation_checkpointing:
        is_reentrant = workload.activation_checkpointing == "reentrant"
        model.model.checkpointing = is_reentrant
        if is_reentrant or not (model.release and workload.prepares_kbit):
            model.enable_input_require_grads()
