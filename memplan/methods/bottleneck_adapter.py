"""Bottleneck adapters as the ``adapters`` library runs them: a small network in each layer.

Houlsby's (``double_seq_bn``) stands behind the attention and the MLP, Pfeiffer's (``seq_bn``)
behind the MLP, the parallel one (``par_bn``) beside it. Local variables live as long here as there.

Source: adapter-hub/adapters v1.3.0 methods/bottleneck.py ``BottleneckLayer``, methods/modeling.py
``Adapter``, ``ParallelAdapter``; configuration/adapter_config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from memplan.dtypes import FP32, INT64, DType
from memplan.engine import Tensor, empty
from memplan.engine.nn import Linear, Module, building_layer
from memplan.engine.ops.activations import relu, tanh
from memplan.engine.ops.pointwise import add, dropout, scale, silu, unary
from memplan.engine.tensor import numel
from memplan.methods.full import freeze_all
from memplan.workload import Workload

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "swish": silu,
    "silu": silu,
    "tanh": tanh,
}


@dataclass(frozen=True, slots=True)
class Config:
    """``BnConfig``, as far as it moves memory."""

    mh_adapter: bool = False
    output_adapter: bool = True
    reduction_factor: float = 16
    non_linearity: str = "relu"
    original_ln_before: bool = True
    original_ln_after: bool = True
    residual_before_ln: bool = True
    is_parallel: bool = False
    dropout: float = 0.0


SEQ_BN = Config()
DOUBLE_SEQ_BN = Config(mh_adapter=True, original_ln_before=False, non_linearity="swish")
PAR_BN = Config(original_ln_before=False, reduction_factor=2, is_parallel=True)
CONFIGS = {
    **{"seq_bn": SEQ_BN, "double_seq_bn": DOUBLE_SEQ_BN, "par_bn": PAR_BN},
    **{"pfeiffer": SEQ_BN, "houlsby": DOUBLE_SEQ_BN, "parallel": PAR_BN},
}


def config_of(options: Mapping[str, Any]) -> Config:
    """The configuration that ``peft_config`` names, with what it changes of it."""
    known = {f.name for f in fields(Config)}
    changes = {k: v for k, v in options.items() if k in known}
    return replace(CONFIGS[options.get("config", "seq_bn")], **changes)


class Adapter(Module):
    """``Adapter`` and ``ParallelAdapter``."""

    def __init__(self, hidden_size: int, config: Config, dtype: DType) -> None:
        down_sample = max(1, int(hidden_size // config.reduction_factor))
        self.config, self.activation = config, ACTIVATIONS[config.non_linearity]
        self.adapter_down = Linear(hidden_size, down_sample, dtype, bias=True)
        self.adapter_up = Linear(down_sample, hidden_size, dtype, bias=True)

    def pre_forward(self, hidden_states: Tensor, input_tensor: Tensor) -> tuple[Tensor, Tensor]:
        """What goes in, and the adapter's own residual."""
        if self.config.is_parallel:
            return input_tensor, input_tensor
        residual = hidden_states
        if self.config.original_ln_before:
            hidden_states = add(hidden_states, input_tensor)
        return hidden_states, residual if self.config.residual_before_ln else hidden_states

    def forward(self, x: Tensor, residual_input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(output, down, up)."""
        down = self.activation(self.adapter_down(x))
        up = self.adapter_up(down)
        up = scale(up)
        output = dropout(up, self.config.dropout)
        if not self.config.is_parallel:
            output = add(output, residual_input)
        return output, down, up

    def post_forward(
        self, hidden_states: Tensor, input_hidden_states: Tensor, input_tensor: Tensor
    ) -> Tensor:
        """The residuals around the adapter and around the block."""
        if self.config.is_parallel:
            hidden_states = add(hidden_states, input_hidden_states)
        if self.config.original_ln_after:
            hidden_states = add(hidden_states, input_tensor)
        return hidden_states


class BottleneckLayer(Module):
    """``BottleneckLayer`` with one adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def forward(self, hidden_states: Tensor, residual_input: Tensor) -> Tensor:
        """Both: (B, S, hidden_size)."""
        input_hidden_states = hidden_states
        state = self.compose(hidden_states, residual_input)
        hidden_states, bottleneck_up = state  # which lives until the end
        hidden_states = self.adapter.post_forward(
            hidden_states, input_hidden_states, residual_input
        )
        del bottleneck_up
        return hidden_states

    def compose(self, hidden_states: Tensor, residual_input: Tensor) -> tuple[Tensor, Tensor]:
        """``compose_stack``: (output, up)."""
        hidden_states, adapter_residual = self.adapter.pre_forward(hidden_states, residual_input)
        layer_output = self.adapter(hidden_states, adapter_residual)
        hidden_states, up = layer_output[0], layer_output[2]
        return hidden_states, up


class AdaptersModel(Module):
    """The wrapped forward: a context with facts of the padding mask stands around it."""

    def __init__(self, base_model: Any) -> None:
        self.base_model = base_model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, labels: Tensor
    ) -> Any:
        """``ForwardContext.wrap``."""
        context = None if attention_mask is None else sequence_facts(attention_mask)
        outputs = self.base_model(input_ids, attention_mask, labels=labels)
        del context
        return outputs

    def saved_instead(self) -> int:
        """``save_adapter``: what trains."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return sum(numel(p.shape) * p.dtype.itemsize * p.copies for p in trained)


def sequence_facts(attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """``forward_context``: lengths and offsets of the sequences."""
    is_one = unary(attention_mask)
    seqlens = empty((attention_mask.shape[0],), INT64)
    del is_one
    offsets = empty((attention_mask.shape[0],), INT64)
    return seqlens, offsets


def apply(model: Any, workload: Workload) -> Module:
    """``adapters.init``, ``add_adapter``, ``train_adapter``, ``adapter_to``."""
    config = config_of(workload.peft_config)
    freeze_all(model)
    for layer in model.model.layers:
        add_adapters(layer, config, adapter_dtype(workload, model))
    return AdaptersModel(model)


def add_adapters(layer: Any, config: Config, dtype: DType) -> None:
    """The adapters of one layer, in the order in which they are moved."""
    weight = layer.input_layernorm.weight
    with building_layer(weight.layer, weight.copies):
        for name, is_wanted in (
            ("attention_adapters", config.mh_adapter),
            ("output_adapters", config.output_adapter),
        ):
            if is_wanted:
                adapter = Adapter(weight.shape[0], config, dtype)
                setattr(layer, name, BottleneckLayer(adapter))


def adapter_dtype(workload: Workload, model: Any) -> DType:
    """fp32 under autocast; else the model's, as the products need both alike."""
    if workload.adapter_dtype == "base" or workload.autocast == "none":
        dtype: DType = model.model.embed_tokens.weight.dtype  # its first parameter
        return dtype
    return FP32
