"""Keys and values that a forward keeps: with ``use_cache``, or after those of a trained prefix.

In training nobody reads what is kept, but the model's output holds it: what that costs is a copy
of every layer's keys and values for as long as the output lives.

Source: huggingface/transformers v5.18.0 cache_utils.py ``DynamicLayer``,
``DynamicSlidingWindowLayer``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memplan.dtypes import INT64
from memplan.engine import Tensor, empty
from memplan.engine.ops.pointwise import cat
from memplan.engine.ops.split import unbind
from memplan.engine.ops.views import join_one, narrow

SEQUENCE = -2


class DynamicLayer:
    """One layer's keys and values, joined to empty tensors of the keys' dtype by the first forward.

    Under autocast the rotation makes keys fp32, and with them the cached values.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values for attention: copies, which the cache keeps."""
        if self.keys is None or self.values is None:
            self.keys = join_one(key_states, key_states.dtype)
            self.values = join_one(value_states, key_states.dtype)
        else:
            self.keys = cat(self.keys, key_states, SEQUENCE)
            self.values = cat(self.values, value_states, SEQUENCE)
        return self.keys, self.values


class DynamicSlidingWindowLayer(DynamicLayer):
    """As above; of the copies it keeps a view of the window, so their whole storage lives."""

    def __init__(self, sliding_window: int) -> None:
        self.sliding_window = sliding_window

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """The whole keys and values for attention."""
        self.sliding_window_tensor = empty((), INT64)  # lazy_initialization moves it to the device
        full_key_states = join_one(key_states, key_states.dtype)
        full_value_states = join_one(value_states, key_states.dtype)
        self.keys = self.last(full_key_states)
        self.values = self.last(full_value_states)
        return full_key_states, full_value_states

    def last(self, states: Tensor) -> Tensor:
        """``states[:, :, -sliding_window + 1 :, :]``; a window of one token slices from 0."""
        length, kept = states.shape[SEQUENCE], self.sliding_window - 1
        return narrow(states, SEQUENCE, kept if 0 < kept < length else length)


class DynamicCache:
    """A cache for each layer, of the layer's kind."""

    layers: Sequence[DynamicLayer]

    def __init__(self, layer_types: tuple[str, ...], sliding_window: int | None) -> None:
        self.layers = [
            DynamicSlidingWindowLayer(sliding_window)
            if kind == "sliding_attention" and sliding_window is not None
            else DynamicLayer()
            for kind in layer_types
        ]

    @classmethod
    def of_data(cls, data: Iterable[Tensor]) -> DynamicCache:
        """A cache that holds keys and values already: of each layer both, one above the other.

        ``DynamicCache(ddp_cache_data)``: whatever the layers of the model are, its own grow.
        """
        layers = []
        for kv in data:
            key_states, value_states = unbind(narrow(kv, 0, 2))  # kv[:2]
            layers.append(DynamicLayer())
            layers[-1].update(key_states, value_states)
        cache = cls((), None)
        cache.layers = layers
        return cache

    def get_seq_length(self) -> int:
        """Tokens whose keys the first layer holds."""
        keys = self.layers[0].keys
        return 0 if keys is None else keys.shape[SEQUENCE]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Keep a layer's keys and values; those that attention is to use."""
        return self.layers[layer_idx].update(keys, values)
