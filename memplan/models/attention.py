"""Attention functions that all families share: SDPA and eager.

Source: huggingface/transformers v5.18.0 integrations/sdpa_attention.py,
models/llama/modeling_llama.py ``eager_attention_forward``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from memplan.engine import Tensor
from memplan.engine.ops.attention import KERNELS, scaled_dot_product_attention
from memplan.engine.ops.matmul import matmul, softmax_float
from memplan.engine.ops.pointwise import add, dropout, scale, to
from memplan.engine.ops.views import contiguous, expand, reshape, transpose, unsqueeze
from memplan.errors import unknown_name

MOST_GROUPED_HEAD_DIM = 256
"""``use_gqa_in_sdpa``: wider heads are repeated before the kernel. [elements]"""


class Grouped(Protocol):
    """What the attention functions read of their module."""

    num_key_value_groups: int
    attention_dropout: float


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
    module: Grouped,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    kernel: str = "sdpa",
) -> tuple[Tensor, Tensor | None]:
    """``sdpa_attention_forward``: grouped heads in the kernel, unless masked or too wide."""
    if mask is not None or key.shape[-1] > MOST_GROUPED_HEAD_DIM:
        key = repeat_kv(key, module.num_key_value_groups)
        value = repeat_kv(value, module.num_key_value_groups)
    attn_output = scaled_dot_product_attention(
        query, key, value, mask, dropout=module.attention_dropout, kernel=kernel
    )
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
    attn_weights = dropout(attn_weights, module.attention_dropout)
    attn_output = matmul(attn_weights, value_states)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


def attention_function(implementation: str) -> AttentionFunction:
    """``ALL_ATTENTION_FUNCTIONS.get_interface``."""
    if implementation == "eager":
        return eager_attention
    if implementation not in KERNELS:
        raise unknown_name("attention", implementation, ("eager", *KERNELS))
    return partial(sdpa_attention, kernel=implementation)
