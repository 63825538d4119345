"""Keys and values of rows: views of a cache, blocks, and both in one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from nabla.models.keys import BlockKeys, Keys, KeyValues, left_padded, packed


def layers(length: int, seed: int) -> KeyValues:
    """Three layers, values narrower than keys (as in latent attention), the last one of other heads."""
    draw = torch.Generator().manual_seed(seed)

    def part(heads: int, size: int) -> Tensor:
        return torch.randn(heads, length, size, generator=draw)

    return KeyValues(tuple((part(heads, 6), part(heads, 4)) for heads in (2, 2, 1)))


def in_blocks(keys: KeyValues, *lengths: int) -> BlockKeys:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    groups = keys.groups()
    return BlockKeys(
        tuple(keys.block(groups, start, size) for start, size in zip(starts, lengths, strict=True)),
        sum(lengths),
    )


def equal(mine: Keys, expected: Keys) -> None:
    assert mine.length == expected.length
    for one, other in zip(mine.layers, expected.layers, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_tensors_of_a_shape_lie_together() -> None:
    groups = layers(5, 0).groups()
    assert [group.members for group in groups] == [(0, 2), (1, 3), (4,), (5,)]
    assert sum(group.bytes_per_token for group in groups) == 4 * (2 * 2 * 10 + 10)


def test_blocks_hold_what_was_cut() -> None:
    whole = layers(7, 0)
    cut = in_blocks(whole, 3, 3, 1)
    equal(cut, whole)
    for length in (1, 3, 4, 7):
        equal(cut.crop(length), whole.crop(length))
        assert len(cut.crop(length).blocks) == -(-length // 3)
    equal(cut.crop(5).crop(2), whole.crop(2))


def test_rows_of_both_kinds_are_padded_on_the_left() -> None:
    expected: list[KeyValues | None] = [layers(5, 1), None, layers(2, 2), layers(6, 3).crop(4)]
    rows: list[Keys | None] = [
        in_blocks(layers(5, 1), 4, 1),
        None,
        layers(2, 2),
        in_blocks(layers(6, 3), 3, 3).crop(4),
    ]
    for order in ([0, 1, 2, 3], [2, 1, 3, 0]):
        padded = left_padded([rows[i] for i in order], 6)
        assert len(padded) == 3
        for index, layer in enumerate(padded):
            for part, found in enumerate(layer):
                for place, i in enumerate(order):
                    source = expected[i]
                    length = 0 if source is None else source.length
                    assert not found[place, :, : 6 - length].any()
                    if source is not None:
                        assert torch.equal(found[place, :, 6 - length :], source.layers[index][part])


def test_parts_are_cut_alike_from_views_from_one_block_and_from_several() -> None:
    whole = layers(9, 4)
    one, several = packed(whole), in_blocks(whole, 4, 4, 1)
    equal(one, whole)
    groups = whole.groups()
    for start, length in ((0, 9), (0, 4), (3, 4), (8, 1)):
        expected = whole.block(groups, start, length)
        for keys in (one, several):
            part = keys.block(groups, start, length)
            assert part.length == length
            for mine, other in zip(part.tensors, expected.tensors, strict=True):
                assert torch.equal(mine, other)
                assert mine.untyped_storage().nbytes() == mine.nbytes  # no view of the whole
