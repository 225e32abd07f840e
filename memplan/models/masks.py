"""Causal masks. Source: huggingface/transformers v5.18.0 masking_utils.py."""

from __future__ import annotations

from memplan.dtypes import BOOL, INT64, DType
from memplan.engine import Storage, Tensor, empty
from memplan.engine.ops import cub
from memplan.engine.ops.pointwise import add_number, binary, to
from memplan.engine.ops.views import expand


def create_causal_mask(
    implementation: str,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor,
) -> Tensor | None:
    """The mask that reaches the attention function, or none where the kernel's own causality will
    do.
    """
    batch, n, dtype = inputs_embeds.shape[0], inputs_embeds.shape[1], inputs_embeds.dtype
    if attention_mask is None:
        find_packed_sequence_indices(position_ids, batch)
    else:
        attention_mask = to(attention_mask, BOOL)
    if implementation == "eager":
        return eager_mask(attention_mask, batch, n, dtype)
    return sdpa_mask(attention_mask, batch, n)


def sdpa_mask(
    padding_mask: Tensor | None, batch: int, n: int, allow_skip: bool = True
) -> Tensor | None:
    """A boolean mask over the batch, rows and columns; batch_idx and kv_idx index the padding
    mask.
    """
    if padding_mask is None and allow_skip:
        return None
    if allow_skip and padding_mask is not None:
        all_true(padding_mask)  # _ignore_causal_mask_sdpa asks twice; the answer is taken to be no
        all_true(padding_mask)
    batch_arange, head_arange = empty((batch,), INT64), empty((1,), INT64)
    q_arange = add_number(empty((n,), INT64))
    kv_arange = add_number(empty((n,), INT64))
    if padding_mask is None:
        return expand(empty((1, 1, n, n), BOOL), (batch, 1, n, n))
    result = empty((), BOOL)  # and_masks
    result = binary(result, empty((1, 1, n, n), BOOL))
    result = binary(result, index_padding(batch, n))
    del kv_arange, q_arange, head_arange, batch_arange
    return result


def index_padding(batch: int, n: int) -> Tensor:
    """``padding_mask[batch_idx, kv_idx]``: both indices are broadcast and made contiguous."""
    batch_idx = empty((batch, 1, 1, n), INT64)
    kv_idx = None if batch == 1 else empty((batch, 1, 1, n), INT64)
    out = empty((batch, 1, 1, n), BOOL)
    del kv_idx, batch_idx
    return out


def all_true(mask: Tensor) -> None:
    """``mask.sum() == mask.numel()``, asked on the device."""
    total = empty((), INT64)
    as_int = empty(mask.shape, INT64)
    del as_int
    equal = empty((), BOOL)
    del equal, total


def eager_mask(padding_mask: Tensor | None, batch: int, n: int, dtype: DType) -> Tensor:
    """The boolean mask as zeros and the dtype's lowest number."""
    mask = sdpa_mask(padding_mask, batch, n, allow_skip=False)
    assert mask is not None
    mask = where_numbers(mask, dtype)
    return mask


def where_numbers(mask: Tensor, dtype: DType) -> Tensor:
    """``torch.where(mask, torch.tensor(0.0, device), number)``: both numbers are made on the
    device.
    """
    zero, lowest = empty((), dtype), empty((), dtype)
    out = empty(mask.shape, dtype)
    del lowest, zero
    return out


def find_packed_sequence_indices(position_ids: Tensor, batch: int) -> None:
    """The check for packed sequences: batch rows (an expanded view) are made real by the
    arithmetic.
    """
    n = position_ids.shape[1]
    first_dummy_value = empty((batch, 1), INT64)
    joined = empty((batch, n + 1), INT64)
    position_diff = empty((batch, n), INT64)
    del joined
    changed = empty((batch, n), BOOL)
    packed_sequence_mask = empty((batch, n), INT64)
    as_int = empty((batch, n), INT64)  # cumsum of bool: the input as int64
    if batch == 1:
        temporary = Storage(cub.scan(n))  # one row: cub's scan (cuda/ScanKernels.cpp)
        del temporary
    del as_int, changed
    last = empty((batch,), BOOL)
    all_zero = empty((), BOOL)
    del last, all_zero
    del packed_sequence_mask, position_diff, first_dummy_value
