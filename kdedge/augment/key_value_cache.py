"""Give the key-value cache of a language model its memory once, instead of at every token.

The cache of transformers that grows concatenates keys and values at every token, and so copies all
earlier ones. Its cache of fixed size returns all positions, also unused ones, and no row of it can
be removed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer in memory for `capacity` tokens.

    `keys` and `values` show the used part of the memory. *Shape:* (B, heads, T, width of a head)
    """

    def __init__(self, layer: DynamicLayer, capacity: int) -> None:
        super().__init__()
        self.dtype, self.device = layer.dtype, layer.device
        self._key_memory, self.keys = _reserve(layer.keys, capacity)
        self._value_memory, self.values = _reserve(layer.values, capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        self.keys = _append(self._key_memory, self.keys, key_states)
        self.values = _append(self._value_memory, self.values, value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Move the rows at `indices`, which ascend, to the front; forget the others."""
        self.keys = _select(self._key_memory, self.keys, indices)
        self.values = _select(self._value_memory, self.values, indices)


def reserve(cache: Cache, capacity: int) -> None:
    """Move a filled cache to memory for `capacity` tokens.

    Layers of other kinds, such as those with a sliding window, stay as they are.
    """
    layers = getattr(cache, "layers", [])
    for i, layer in enumerate(layers):
        if type(layer) is DynamicLayer:
            layers[i] = ReservedLayer(layer, capacity)


def _reserve(states: torch.Tensor, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return memory for `capacity` tokens that begins with these states, and the used part."""
    rows, heads, tokens, width = states.shape
    memory = states.new_empty(rows, heads, capacity, width)
    used = memory[:, :, :tokens]
    return memory, used.copy_(states)


def _append(memory: torch.Tensor, used: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    rows, _, start, _ = used.shape
    end = start + states.shape[2]
    memory[:rows, :, start:end] = states
    return memory[:rows, :, :end]


def _select(memory: torch.Tensor, used: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    kept = memory[: len(indices), :, : used.shape[2]]
    return kept.copy_(used[indices])
