"""LLaMA-Adapter as PEFT runs it: gated attention to a trained prompt, on the last layers.

Queries are not returned by the attention that is wrapped: they are made a second time.

Source: huggingface/peft v0.21.2 peft/tuners/adaption_prompt/model.py, layer.py, utils.py
``llama_compute_query_states``.
"""

from __future__ import annotations

from typing import Any

from memplan import checks
from memplan.dtypes import BF16, FP16, FP32
from memplan.engine import Tensor
from memplan.engine.nn import Module, building_layer, parameter
from memplan.engine.ops.matmul import matmul, softmax_float
from memplan.engine.ops.pointwise import add, cat, mul, neg, scale, to
from memplan.engine.ops.views import (
    clone,
    expand,
    half,
    repeat_batch,
    reshape,
    transpose,
    unsqueeze,
    view,
)
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.full import freeze_all
from memplan.workload import Workload

MODEL_TYPES = ("llama", "mistral")
ADAPTER_LEN, ADAPTER_LAYERS = 10, 30
"""The paper's prompt and adapted layers, where the workload gives none.

Source: arXiv:2303.16199, section 4.1; PEFT has no defaults.
"""
MOST = 1 << 20


class AdaptedAttention(Module):
    """``AdaptedAttention``: in the dtype of the projections; fp32 where they are packed."""

    def __init__(self, attention: Any, adapter_len: int, config: Any) -> None:
        dtype = attention.q_proj.weight.dtype
        dtype = dtype if dtype in (BF16, FP16, FP32) else FP32
        self.model = attention
        self.adapter_len = adapter_len
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.factor = attention.k_proj.in_features // attention.k_proj.out_features
        self.adaption_prompt = parameter((1, adapter_len, config.hidden_size), dtype)
        self.adaption_gate = parameter((1,), dtype)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: (B, S, hidden_size)."""
        output, attn_weights = self.model(
            hidden_states, position_embeddings, attention_mask, past_key_values
        )
        bsz, q_len, _ = output.shape
        key = self.model.k_proj(self.adaption_prompt)
        value = self.model.v_proj(self.adaption_prompt)
        adapter_k = self.repeated(key, bsz)
        adapter_v = self.repeated(value, bsz)
        adapter_k = repeat_interleave(adapter_k, self.factor)
        adapter_v = repeat_interleave(adapter_v, self.factor)
        query_states = self.compute_query_states(hidden_states, position_embeddings)
        previous_dtype = query_states.dtype
        scores = scale(matmul(query_states, to(transpose(adapter_k, 2, 3), previous_dtype)))
        scores = mul(self.adaption_gate, to(softmax_float(scores), previous_dtype))
        width = self.num_heads * self.head_dim
        adapter_output = reshape(transpose(matmul(scores, adapter_v), 1, 2), (bsz, q_len, width))
        adapter_output = self.model.o_proj(adapter_output)
        output = add(output, adapter_output)
        output = to(output, previous_dtype)
        return output, attn_weights

    def repeated(self, x: Tensor, bsz: int) -> Tensor:
        """The prompt's keys or values for each sequence: (B, KV, adapter_len, head_dim)."""
        shape = (1, self.adapter_len, self.num_heads // self.factor, self.head_dim)
        return transpose(repeat_batch(view(x, shape), bsz), 1, 2)

    def compute_query_states(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Queries after the rotation; values are made, too, and not used."""
        B, N, _ = hidden_states.shape
        heads, key_value_heads = self.num_heads, self.num_heads // self.factor
        query_states = view(self.model.q_proj(hidden_states), (B, N, heads, self.head_dim))
        query_states = transpose(query_states, 1, 2)
        value_states = view(
            self.model.v_proj(hidden_states), (B, N, key_value_heads, self.head_dim)
        )
        value_states = transpose(value_states, 1, 2)
        cos, sin = position_embeddings
        cos = unsqueeze(cos, 1)
        sin = unsqueeze(sin, 1)
        out = add(mul(query_states, cos), mul(rotate_half(query_states), sin))
        del value_states
        return out


def rotate_half(x: Tensor) -> Tensor:
    """``llama_rotate_half``: the second half negated, before the first."""
    x1 = half(x)
    x2 = half(x)
    return cat(neg(x2), x1, -1)


def repeat_interleave(x: Tensor, repeats: int) -> Tensor:
    """``torch.repeat_interleave(x, repeats, dim=1)`` of 4 dimensions: a clone, even for one.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/Repeat.cpp``.
    """
    B, heads, n, width = x.shape
    expanded = expand(unsqueeze(x, 2), (B, heads, repeats, n, width))
    return view(clone(expanded), (B, heads * repeats, n, width))


def apply(model: Any, workload: Workload) -> Any:
    """``get_peft_model`` of an ``AdaptionPromptConfig``: nothing is cast.

    Raises:
        ConfigError: PEFT does not adapt such a model.
    """
    if workload.target_modules is not None:
        raise UnsupportedError(
            f"target_modules: {workload.method} on other modules than PEFT's own is not modelled."
        )
    layers = model.model.layers
    adapter_len, adapter_layers = sizes(workload, len(layers))
    check_model(model.config, workload.method)
    freeze_all(model)
    for layer in layers[len(layers) - adapter_layers :]:
        weight = next(layer.parameters())
        with building_layer(weight.layer, weight.copies):
            layer.self_attn = AdaptedAttention(layer.self_attn, adapter_len, model.config)
    return model


def sizes(workload: Workload, layers: int) -> tuple[int, int]:
    """(tokens of the prompt, adapted layers)."""
    given = workload.peft_config
    tokens = given.get("adapter_len", ADAPTER_LEN)
    adapted = given.get("adapter_layers", min(ADAPTER_LAYERS, layers))
    checks.integer(tokens, "peft_config: adapter_len", minimum=1, maximum=MOST)
    why = "the model has no more layers"
    checks.integer(adapted, "peft_config: adapter_layers", minimum=1, maximum=layers, why=why)
    return tokens, adapted


def check_model(config: Any, method: str) -> None:
    """What PEFT's forward takes: keys and values whose width divides that of the model evenly.

    It takes the groups of heads from the projections' sizes, so that heads of a width of their own
    do not fit together.
    """
    if config.model_type not in MODEL_TYPES:
        raise ConfigError(
            f"method {method}: PEFT adapts {' and '.join(MODEL_TYPES)}, and no {config.model_type}."
        )
    heads, key_value_heads = config.num_attention_heads, config.num_key_value_heads
    factor = config.hidden_size // (key_value_heads * config.head_dim)
    if not factor or heads // factor != key_value_heads or key_value_heads * factor != heads:
        raise ConfigError(
            f"method {method}: PEFT takes hidden_size / (num_key_value_heads * head_dim), here "
            f"{factor}, for the query heads of a key, which are {heads // key_value_heads}; it "
            "does not run on this model. Use another method."
        )
