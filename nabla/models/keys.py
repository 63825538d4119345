"""Attention keys and values of a row: as a model's cache holds them, or in blocks of the prefix store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Keys and values of one layer, ``[heads, length, head_dim]`` each.
Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors of one shape, dtype and device that are copied together.

    Args:
        members: places among first layer's keys, first layer's values, second layer's keys, ...
        sample: an empty tensor of the same heads, head_dim, dtype and device.
    """

    members: tuple[int, ...]
    sample: Tensor

    def empty(self, *rows: int, length: int) -> Tensor:
        """Not filled: ``[members, *rows, heads, length, head_dim]``."""
        heads, _, size = self.sample.shape[-3:]
        return self.sample.new_empty((len(self.members), *rows, heads, length, size))

    @property
    def bytes_per_token(self) -> int:
        """Of all members."""
        heads, _, size = self.sample.shape[-3:]
        return len(self.members) * heads * size * self.sample.element_size()


@dataclass(frozen=True, eq=False)
class KeyValues:
    """Attention keys and values of one row as a model's cache holds them: mostly views of a batch."""

    layers: tuple[Layer, ...]

    @property
    def length(self) -> int:
        """Number of cached tokens."""
        return int(self.layers[0][0].shape[-2])

    @property
    def bytes_per_token(self) -> int:
        """Of all layers."""
        return sum(group.bytes_per_token for group in self.groups())

    def crop(self, length: int) -> KeyValues:
        """The first ``length`` tokens (views, nothing is copied)."""
        return KeyValues(tuple((k[:, :length], v[:, :length]) for k, v in self.layers))

    def groups(self) -> tuple[Group, ...]:
        """Tensors of one shape, dtype and device."""
        found: dict[tuple[int, int, torch.dtype, torch.device], list[int]] = {}
        flat = self._flat()
        for place, part in enumerate(flat):
            kind = (part.shape[0], part.shape[-1], part.dtype, part.device)
            found.setdefault(kind, []).append(place)
        # The sample has storage of its own: a view would keep the batch alive.
        return tuple(
            Group(tuple(places), flat[places[0]].new_empty((heads, 0, size)))
            for (heads, size, *_), places in found.items()
        )

    def write(self, groups: Sequence[Group], out: Sequence[Tensor], /) -> None:
        """Copies them into one tensor a group, ``[members, heads, length, head_dim]`` each."""
        flat = self._flat()
        for group, target in zip(groups, out, strict=True):
            for place, one in zip(group.members, target.unbind(), strict=True):
                one.copy_(flat[place])

    @torch.no_grad()
    def block(self, groups: Sequence[Group], start: int, length: int) -> Block:
        """A copy of its own of ``length`` tokens from ``start`` on."""
        flat = self._flat()
        parts = [[flat[place].narrow(1, start, length) for place in group.members] for group in groups]
        return Block(tuple(groups), tuple(torch.stack(part) for part in parts))

    def _flat(self) -> list[Tensor]:
        return [part for layer in self.layers for part in layer]


@dataclass(frozen=True, eq=False)
class Block:
    """Keys and values of a few tokens, in storage of their own: ``[members, heads, n, head_dim]`` a group."""

    groups: tuple[Group, ...]
    tensors: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return int(self.tensors[0].shape[-2])

    def part(self, start: int, length: int) -> Block:
        """A copy of its own of ``length`` tokens from ``start`` on."""
        return Block(self.groups, tuple(one.narrow(-2, start, length).clone() for one in self.tensors))


@dataclass(frozen=True, eq=False)
class BlockKeys:
    """Keys and values of one row that lie in blocks one behind another, the last of them perhaps in part."""

    blocks: tuple[Block, ...]
    length: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Put together anew at each call."""
        groups = self.groups()
        out = [group.empty(length=self.length) for group in groups]
        self.write(groups, out)
        return unpacked(groups, out)

    def crop(self, length: int) -> BlockKeys:
        """The first ``length`` tokens (nothing is copied)."""
        kept, before = [], 0
        for block in self.blocks:
            if before >= length:
                break
            kept.append(block)
            before += block.length
        return BlockKeys(tuple(kept), min(length, self.length))

    def groups(self) -> tuple[Group, ...]:
        """Those of the blocks."""
        return self.blocks[0].groups

    @torch.no_grad()
    def block(self, groups: Sequence[Group], start: int, length: int) -> Block:
        """A copy of its own of ``length`` tokens from ``start`` on."""
        if len(self.blocks) == 1:
            return self.blocks[0].part(start, length)
        out = [group.empty(length=self.length) for group in groups]
        self.write(groups, out)
        return Block(tuple(groups), tuple(out)).part(start, length)

    def write(self, _: Sequence[Group], out: Sequence[Tensor], /) -> None:
        """Copies them into one tensor a group, ``[members, heads, length, head_dim]`` each."""
        start = 0
        for block in self.blocks:
            count = min(block.length, self.length - start)
            for target, part in zip(out, block.tensors, strict=True):
                target.narrow(-2, start, count).copy_(part.narrow(-2, 0, count))
            start += count


#: Either; both have ``length``, ``layers``, ``crop``, ``groups``, ``write`` and ``block``.
Keys = KeyValues | BlockKeys


def packed(keys: KeyValues, groups: Sequence[Group] | None = None) -> BlockKeys:
    """A copy in one block: parts of it are cut out by a copy a group, not one a layer.

    Args:
        keys: mostly views of a batch.
        groups: of these keys, where they are known.
    """
    groups = keys.groups() if groups is None else groups
    return BlockKeys((keys.block(groups, 0, keys.length),), keys.length)


def unpacked(groups: Sequence[Group], packed: Sequence[Tensor]) -> tuple[Layer, ...]:
    """Layer by layer: views of what lies together."""
    flat = {
        place: one
        for group, part in zip(groups, packed, strict=True)
        for place, one in zip(group.members, part.unbind(), strict=True)
    }
    return tuple((flat[place], flat[place + 1]) for place in range(0, len(flat), 2))


def left_padded(keys: Sequence[Keys | None], deepest: int) -> list[Layer]:
    """Keys and values of all rows, layer by layer, aligned at their last token, zeros before."""
    groups = next(k for k in keys if k is not None).groups()
    packed = [group.empty(len(keys), length=deepest) for group in groups]
    for row, source in enumerate(keys):
        length = 0 if source is None else source.length
        rows = [part[:, row] for part in packed]
        if length < deepest:
            for part in rows:
                part.narrow(-2, 0, deepest - length).zero_()
        if source is not None:
            source.write(groups, [part.narrow(-2, deepest - length, length) for part in rows])
    return list(unpacked(groups, packed))
