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
        self._keys, self._values = _moved(keys), _moved(values)
        self._expose(keys.shape[-2])

    def _expose(self, length: int) -> None:
        self.keys = self._keys[:, :, :length]
        self.values = self._values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self.capacity:
            self._keys, self._values = _moved(self.keys), _moved(self.values)
        self._keys[:, :, old:new] = key_states
        self._values[:, :, old:new] = value_states
        self._expose(new)
        return self.keys, self.values

    @property
    def capacity(self) -> int:
        """Columns that there is room for."""
        return int(self._keys.shape[-2])

    def arrange(self, rows: Tensor, first: int, before: int, more: int) -> None:
        """Some rows from a column on, behind so many columns of zeros, and so many more rows of zeros."""
        rows, length = rows.to(self.keys.device), self.keys.shape[-2] - first + before
        for name in ("_keys", "_values"):
            old = getattr(self, name)[:, :, first : self.keys.shape[-2]]
            new = _buffer(old, len(rows) + more, length)
            new[len(rows) :, :, :length] = 0
            new[: len(rows), :, :before] = 0
            new[: len(rows), :, before:length] = old[rows]
            setattr(self, name, new)
        self._expose(length)

    def put(self, row: int, keys: Tensor, values: Tensor) -> None:
        """Another text in a row, at the right end; zeros before it, since what is masked is still multiplied
        (by 0, and NaN times 0 is NaN)."""
        for there, new in ((self.keys, keys), (self.values, values)):
            there[row, :, : there.shape[-2] - new.shape[-2]] = 0
            there[row, :, there.shape[-2] - new.shape[-2] :] = new


def _buffer(like: Tensor, rows: int, length: int) -> Tensor:
    """An empty buffer for so many columns, and room for an eighth more."""
    room = max(ROOM, length // 8)
    return like.new_empty((rows, like.shape[1], length + room, like.shape[-1]))


def _moved(old: Tensor) -> Tensor:
    """Into a new buffer."""
    length = old.shape[-2]
    new = _buffer(old, len(old), length)
    new[:, :, :length] = old
    return new
