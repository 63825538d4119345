"""Rows that are decoded together: their keys and values, aligned at the last token, and what is known of
their tokens. A row may take the place of one that has ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.models.body import Body
from nabla.models.keys import BlockKeys, Keys, KeyValues, left_padded, packed

#: Tokens per row that there is room for at first.
ROOM = 64


class CacheSlots:
    """Keys and values of rows of different lengths, padded on the left. All rows grow by a column a step.

    Args:
        body: whose they are.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        #: The last position that is right.
        self.last = sys.maxsize if body.context_length is None else body.context_length - 1
        self.layers: list[Any] = []
        self.cache: Any = None
        #: Columns in use, and the first one of each row.
        self.length = 0
        self.offset = torch.empty(0, dtype=torch.long, device=body.device)
        self._mask = self.offset

    def __len__(self) -> int:
        return len(self.offset)

    def arrange(self, kept: Sequence[int], joined: Sequence[Keys]) -> None:
        """Keeps some rows, in this order, and puts new ones behind them. Columns that nobody needs are left
        out."""
        if not kept:
            self._start(joined)
            return
        device = self.body.device
        rows = torch.tensor(kept, device=device)
        offset = self.offset[rows]
        first = int(offset.min())
        before = max([0, *(keys.length - (self.length - first) for keys in joined)])
        for layer in self.layers:
            layer.arrange(rows, first, before, len(joined))
        self.length += before - first
        starts = torch.tensor([self.length - keys.length for keys in joined], dtype=torch.long)
        self.offset = torch.cat([offset + (before - first), starts.to(device)])
        self._cover()
        for row, keys in enumerate(joined, len(kept)):
            self._put(row, keys)

    def _start(self, joined: Sequence[Keys]) -> None:
        from transformers import Cache

        from nabla.models.layers import GrowingLayer

        self.length = max(keys.length for keys in joined)
        self.layers = [GrowingLayer(*pair) for pair in left_padded(joined, self.length)]
        self.cache = Cache(layers=self.layers)
        self.offset = torch.tensor([self.length - keys.length for keys in joined], device=self.body.device)
        self._cover()

    def _cover(self) -> None:
        column = torch.arange(self.layers[0].capacity, device=self.body.device)
        self._mask = (column >= self.offset.unsqueeze(1)).long()

    def fits(self, keys: Keys) -> bool:
        """Whether a row can take another's place as things are."""
        return keys.length <= self.length

    def replace(self, row: int, keys: Keys) -> None:
        """Another text in the place of one that has ended; it must fit."""
        start = self.length - keys.length
        self.offset[row] = start
        self._mask[row, :start], self._mask[row, start:] = 0, 1
        self._put(row, keys)

    def _put(self, row: int, keys: Keys) -> None:
        for layer, pair in zip(self.layers, keys.layers, strict=True):
            layer.put(row, *pair)

    def take(self, row: int) -> BlockKeys:
        """A row's own. Copies: a view would keep the whole batch's buffers alive."""
        own = slice(int(self.offset[row]), self.length)
        return packed(KeyValues(tuple((x.keys[row, :, own], x.values[row, :, own]) for x in self.layers)))

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows hidden"]:
        """States behind one new token per row."""
        if self.length == self.layers[0].capacity:
            self.arrange(range(len(self)), [])
        self.length += 1
        mask = self._mask[:, : self.length]
        # A row that has ended grows with the others while it waits: a position behind the last one is in no
        # table, and would exchange the tables of all rows where the largest of a batch decides (longrope).
        positions = (self.length - 1 - self.offset).clamp_max(self.last)
        return self.body.step(tokens, mask, positions, self.cache)


class Notes:
    """What is known of each row's tokens: a column a step, in buffers that double."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        #: Columns in use.
        self._length = 0
        #: The first one of each row; None where a row has ended.
        self._first: list[int | None] = []

    def arrange(self, kept: Sequence[int], joined: int) -> None:
        """Keeps some rows and puts empty ones behind them."""
        if not kept or not self._parts:
            self._parts, self._length = [], 0
            self._first = [0] * (len(kept) + joined)
            return
        rows = torch.tensor([*kept, *(list(kept[:1]) * joined)])
        self._parts = [part[rows.to(part.device)] for part in self._parts]
        self._first = [*(self._first[row] for row in kept), *([self._length] * joined)]

    def replace(self, row: int) -> None:
        """Nothing is known of a row that begins."""
        self._first[row] = self._length

    def add(self, *new: Tensor) -> None:
        """Of one more token of each row: ``[rows, width]`` each."""
        if not self._parts:
            self._parts = [x.new_zeros(len(x), ROOM, x.shape[-1]) for x in new]
        if self._length == self._parts[0].shape[1]:
            self._make_room()
        for part, x in zip(self._parts, new, strict=True):
            part[:, self._length] = x
        self._length += 1

    def _make_room(self) -> None:
        """In place of columns that belong to rows of the past, or behind the last one."""
        past = min((first for first in self._first if first is not None), default=self._length)
        if past:
            self._parts = [torch.cat([p[:, past:], torch.zeros_like(p[:, :past])], 1) for p in self._parts]
            self._first = [None if first is None else first - past for first in self._first]
            self._length -= past
        else:
            self._parts = [torch.cat([part, torch.zeros_like(part)], 1) for part in self._parts]

    def take(self, row: int, count: int) -> list[Tensor]:
        """Copies of a row's first so many, at its end: a view would keep the whole batch's alive."""
        first, self._first[row] = self._first[row], None
        assert first is not None
        return [part[row, first : first + count].clone() for part in self._parts]
