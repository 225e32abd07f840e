"""Causal masks of transformers v4.57, which the ``adapters`` library pins.

Without padding and without a cache, it looks for packed sequences and then always makes a mask, so
that no kernel's own causality is used; ``torch.vmap`` makes it in more and smaller steps.

Source: huggingface/transformers v4.57.6 masking_utils.py ``create_causal_mask``,
``sdpa_mask_recent_torch``; recorded on the virtual GPU. B batch, N sequence length.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, INT64
from memplan.engine import Tensor, empty, numel
from memplan.engine.ops.pointwise import to
from memplan.engine.ops.views import expand
from memplan.engine.reduction import borrow_full
from memplan.models.masks import index_padding, number_sequences, where_numbers


def create_causal_mask(
    implementation: str,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    *,
    has_cache: bool,
) -> Tensor | None:
    """The mask for the attention function, or none where the kernel's own causality will do."""
    batch, n, dtype = inputs_embeds.shape[0], inputs_embeds.shape[1], inputs_embeds.dtype
    packed = None
    if attention_mask is not None:
        attention_mask = to(attention_mask, BOOL)
    elif not has_cache:
        packed = find_packed_sequence_indices(n, batch)
    if implementation == "eager":
        return where_numbers(sdpa_mask(attention_mask, packed, batch, n), dtype)
    if packed is None and ignores_causal_mask(attention_mask):
        return None
    return sdpa_mask(attention_mask, packed, batch, n)


def ignores_causal_mask(padding_mask: Tensor | None) -> bool:
    """``_ignore_causal_mask_sdpa``: ``padding_mask.all()``, and the answer is taken to be no."""
    if padding_mask is None:
        return True
    answer = empty((), BOOL)
    borrow_full(numel(padding_mask.shape), BOOL.itemsize)
    del answer
    return False


def find_packed_sequence_indices(n: int, batch: int) -> Tensor:
    """The sequence that each token belongs to: (B, N)."""
    packed_sequence_mask, position_diff, first_dummy_value = number_sequences(n, batch)
    del first_dummy_value, position_diff
    return packed_sequence_mask


def sdpa_mask(padding_mask: Tensor | None, packed: Tensor | None, batch: int, n: int) -> Tensor:
    """A boolean mask over the batch, rows and columns: (B, 1, N, N)."""
    kv_arange, batch_arange, head_arange = (empty((k,), INT64) for k in (n, batch, 1))
    ones = empty((n,), BOOL)  # as many as queries: vmap sees one
    causal = empty((1, 1, n, n), BOOL)
    result = empty((1, 1, n, n), BOOL)
    del causal, ones
    if padding_mask is not None:
        result = with_padding(result, batch, n)
    elif packed is not None:
        result = with_packed(result, batch, n)
    result = expand(result, (batch, 1, n, n))
    del kv_arange, batch_arange, head_arange
    return result


def with_padding(result: Tensor, batch: int, n: int) -> Tensor:
    """``result & padding_mask[batch_idx, kv_idx]``."""
    padding = index_padding(batch, n)
    out = empty((batch, 1, n, n), BOOL)
    del padding
    return out


def with_packed(result: Tensor, batch: int, n: int) -> Tensor:
    """``result & (packed[batch_idx, q_idx] == packed[batch_idx, kv_idx])``."""
    of_queries = index_packed(batch, n)
    of_keys = index_packed(batch, n)
    same = empty((batch, 1, n, n), BOOL)
    del of_queries, of_keys
    out = empty((batch, 1, n, n), BOOL)
    del same
    return out


def index_packed(batch: int, n: int) -> Tensor:
    """``packed_sequence_mask[batch_idx, idx]``; indices as in ``masks.index_padding``."""
    batch_idx = None if n == 1 else empty((batch, n), INT64)
    idx = None if batch == 1 else empty((batch, n), INT64)
    out = empty((batch, n), INT64)
    del idx, batch_idx
    return out
