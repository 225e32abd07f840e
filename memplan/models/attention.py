"""Attention functions that all families share: SDPA and eager.

Source: huggingface/transformers v5.18.0 integrations/sdpa_attention.py,
models/llama/modeling_llama.py ``eager_attention_forward``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from memplan.engine import Tensor
from memplan.engine.ops.attention import efficient_attention, flash_attention
from memplan.engine.ops.matmul import matmul, softmax_float
from memplan.engine.ops.pointwise import add, scale, to
from memplan.engine.ops.views import contiguous, expand, reshape, transpose, unsqueeze

MOST_GROUPED_HEAD_DIM = 256
"""``use_gqa_in_sdpa``: wider heads are repeated before the kernel. [elements]"""


class Grouped(Protocol):
    """What the attention functions read of their module."""

    num_key_value_groups: int


AttentionFunction = Callable[
    [Grouped, Tensor, Tensor, Tensor, "Tensor | None"], "tuple[Tensor, Tensor | None]"
]


def repeat_kv(hidden_states: Tensor, n_rep: int) -> Tensor:
    """(B, KV, S, D) -> (B, KV * n_rep, S, D)."""
    batch, num_key_value_heads, slen, head_dim = hidden_states.shape
    if n_rep == 1:
        return hidden_states
    hidden_states = expand(
        unsqueeze(hidden_states, 2), (batch, num_key_value_heads, n_rep, slen, head_dim)
    )
    return reshape(hidden_states, (batch, num_key_value_heads * n_rep, slen, head_dim))


def sdpa_attention(
    module: Grouped, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """``sdpa_attention_forward``.

    Grouped heads stay grouped for the kernel unless there is a mask or heads are too wide.
    """
    if mask is not None or key.shape[-1] > MOST_GROUPED_HEAD_DIM:
        key = repeat_kv(key, module.num_key_value_groups)
        value = repeat_kv(value, module.num_key_value_groups)
    if mask is not None:
        attn_output = efficient_attention(query, key, value, mask)
    else:
        attn_output = flash_attention(query, key, value)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, None


def eager_attention(
    module: Grouped, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """``eager_attention_forward``."""
    key_states = repeat_kv(key, module.num_key_value_groups)
    value_states = repeat_kv(value, module.num_key_value_groups)
    attn_weights = scale(matmul(query, transpose(key_states, 2, 3)))
    if mask is not None:
        attn_weights = add(attn_weights, mask)
    attn_weights = to(softmax_float(attn_weights), query.dtype)
    attn_output = matmul(attn_weights, value_states)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


def attention_function(implementation: str) -> AttentionFunction:
    """``ALL_ATTENTION_FUNCTIONS.get_interface``."""
    return eager_attention if implementation == "eager" else sdpa_attention
