"""Layers of transformers' key/value cache that nabla runs models with.

They subclass transformers', so that this module is imported where a model runs and not before.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicLayer

#: Tokens by which the buffers of keys and values grow. Short ones: rows that lie close together are read
#: faster, and dropping rows copies less.
ROOM = 32


class GivenLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a prefix that new ones are read with and not added to: nothing is kept that
    nobody will ask for, and a layer may be run twice."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


class RecordingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values behind those of a prefix, if there is one, in a pass that keeps its graph: all of them
    are remembered without it, and a layer may be run twice (checkpointed ones are)."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values
        #: Of prefix and chunk, once the layer has run.
        self.seen: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if self.is_initialized:
            key_states = torch.cat([self.keys, key_states], -2)
            value_states = torch.cat([self.values, value_states], -2)
        self.seen = key_states.detach(), value_states.detach()
        return key_states, value_states


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer with room for more, instead of a concatenation at every step."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._move(keys, values)

    def _move(self, keys: Tensor, values: Tensor) -> None:
        """Into new buffers."""
        length = keys.shape[-2]
        self._keys = keys.new_empty((*keys.shape[:2], length + ROOM, keys.shape[-1]))
        self._values = values.new_empty((*values.shape[:2], length + ROOM, values.shape[-1]))
        self._keys[:, :, :length] = keys
        self._values[:, :, :length] = values
        self._expose(length)

    def _expose(self, length: int) -> None:
        self.keys = self._keys[:, :, :length]
        self.values = self._values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self._keys.shape[-2]:
            self._move(self.keys, self.values)
        self._keys[:, :, old:new] = key_states
        self._values[:, :, old:new] = value_states
        self._expose(new)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keeps some rows of the batch."""
        self._move(self.keys[rows], self.values[rows])
