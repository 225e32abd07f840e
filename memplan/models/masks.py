"""Causal masks, full and windowed. Source: huggingface/transformers v5.18.0 masking_utils.py.

A mask is made on the device in many small steps; where it would say no more than the kernel's own
causality, SDPA gets none. Local variables live as long here as there. B batch, N queries, M keys:
those of the queries and, before them, those that a cache held already.
"""

from __future__ import annotations

from memplan.dtypes import BOOL, INT64, DType
from memplan.engine import Storage, Tensor, empty, numel
from memplan.engine.ops import cub
from memplan.engine.ops.pointwise import add_number, binary, to, unary
from memplan.engine.ops.views import expand, unsqueeze
from memplan.engine.reduction import borrow_full


def create_causal_mask(
    implementation: str,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor,
    *,
    past: int | None = None,
    sliding_window: int | None = None,
) -> Tensor | None:
    """The mask for the attention function, or none where the kernel's own causality will do.

    ``create_causal_mask``; with a window, ``create_sliding_window_causal_mask``.

    Args:
        implementation: Of the attention.
        inputs_embeds: (B, N, hidden_size).
        attention_mask: (B, M), or none.
        position_ids: (1, N).
        past: Keys that the cache holds already, or none where there is no cache. [tokens]
        sliding_window: Length of the window. [tokens]
    """
    batch, n, dtype = inputs_embeds.shape[0], inputs_embeds.shape[1], inputs_embeds.dtype
    if attention_mask is not None:
        attention_mask = to(attention_mask, BOOL)
    elif past is None:
        find_packed_sequence_indices(position_ids, batch)
    if implementation == "eager":
        mask = sdpa_mask(attention_mask, batch, n, past or 0, sliding_window)
        return where_numbers(mask, dtype)  # eager attention always gets one
    if ignore_causal_mask(attention_mask, n, past or 0, sliding_window):
        return None
    return sdpa_mask(attention_mask, batch, n, past or 0, sliding_window)


def ignore_causal_mask(
    padding_mask: Tensor | None, n: int, past: int, sliding_window: int | None
) -> bool:
    """``_ignore_causal_mask_sdpa``: no padding, no window that is reached, as many keys as queries.

    A given padding mask is taken to have padding: it is asked up to twice, and the answer is no.
    """
    if sliding_window is not None and n + past >= sliding_window:
        return False
    if n == 1 or not past:
        if padding_mask is None:
            return True
        all_true(padding_mask)
    if not past and padding_mask is not None:
        all_true(padding_mask)
    return False


def sdpa_mask(
    padding_mask: Tensor | None, batch: int, n: int, past: int, sliding_window: int | None
) -> Tensor:
    """A boolean mask over the batch, rows and columns: (B, 1, N, M)."""
    batch_arange, head_arange = empty((batch,), INT64), empty((1,), INT64)
    q_arange = add_number(empty((n,), INT64))
    kv_arange = add_number(empty((n + past,), INT64))
    attention_mask = mask_function(padding_mask, batch, q_arange, kv_arange, sliding_window)
    attention_mask = expand(attention_mask, (batch, 1, n, n + past))
    del kv_arange, q_arange, head_arange, batch_arange
    return attention_mask


def mask_function(
    padding_mask: Tensor | None,
    batch: int,
    q_arange: Tensor,
    kv_arange: Tensor,
    sliding_window: int | None,
) -> Tensor:
    """The window, causality and the padding, joined by ``and_masks`` where there are several."""
    q_idx = unsqueeze(unsqueeze(unsqueeze(q_arange, 0), 0), 3)
    kv_idx = unsqueeze(unsqueeze(unsqueeze(kv_arange, 0), 0), 0)
    if padding_mask is None:
        return pattern(q_idx, kv_idx, sliding_window)
    result = empty((), BOOL)
    result = binary(result, pattern(q_idx, kv_idx, sliding_window))
    result = binary(result, index_padding(batch, kv_idx.shape[-1]))
    return result


def pattern(q_idx: Tensor, kv_idx: Tensor, sliding_window: int | None) -> Tensor:
    """``causal_mask_function``, or ``sliding_window_causal_mask_function``."""
    if sliding_window is None:
        return binary(kv_idx, q_idx, BOOL)
    result = empty((), BOOL)
    result = binary(result, in_window(q_idx, kv_idx))
    result = binary(result, binary(kv_idx, q_idx, BOOL))
    return result


def in_window(q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """``kv_idx > q_idx - sliding_window``."""
    return binary(kv_idx, unary(q_idx), BOOL)


def index_padding(batch: int, n: int) -> Tensor:
    """``padding_mask[batch_idx, kv_idx]``: (B, 1, 1, N).

    Indices whose broadcast layouts differ are made contiguous.

    Source: pytorch/pytorch v2.14.1 ``aten/src/ATen/native/TensorAdvancedIndexing.cpp``
    ``AdvancedIndex``.
    """
    shape = (batch, 1, 1, n)
    batch_idx = None if n == 1 else empty(shape, INT64)
    kv_idx = None if batch == 1 else empty(shape, INT64)
    out = empty(shape, BOOL)
    del kv_idx, batch_idx
    return out


def all_true(mask: Tensor) -> None:
    """``mask.sum() == mask.numel()``, asked on the device."""
    total = empty((), INT64)
    as_int = empty(mask.shape, INT64)
    borrow_full(numel(mask.shape), INT64.itemsize)
    del as_int
    equal = empty((), BOOL)
    del equal, total


def where_numbers(mask: Tensor, dtype: DType) -> Tensor:
    """``eager_mask``: the boolean mask as zeros and the dtype's lowest number.

    ``torch.where(mask, torch.tensor(0.0, device), number)``: numbers on the device, too.
    """
    zero, lowest = empty((), dtype), empty((), dtype)
    out = empty(mask.shape, dtype)
    del lowest, zero
    return out


def find_packed_sequence_indices(position_ids: Tensor, batch: int) -> None:
    """The check for packed sequences; its arithmetic makes the expanded batch rows real."""
    packed_sequence_mask, position_diff, first_dummy_value = number_sequences(
        position_ids.shape[1], batch
    )
    last = empty((batch,), BOOL)
    all_zero = empty((), BOOL)
    del last, all_zero
    del packed_sequence_mask, position_diff, first_dummy_value


def number_sequences(n: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """The sequence that each token belongs to, (B, N), and the locals that it was made from."""
    first_dummy_value = empty((batch, 1), INT64)
    joined = empty((batch, n + 1), INT64)
    position_diff = empty((batch, n), INT64)
    del joined
    changed = empty((batch, n), BOOL)
    packed_sequence_mask = empty((batch, n), INT64)
    as_int = empty((batch, n), INT64)  # cumsum of bool: the input as int64
    if batch == 1:
        temporary = Storage(cub.scan(n))  # one row: cub's scan (cuda/ScanUtils.cuh)
        del temporary
    del as_int, changed
    return packed_sequence_mask, position_diff, first_dummy_value
