"""Prefixes that are kept, and costs that are counted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.models.body import EMPTY, Body, Chunk, KeyValues
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from tests import tiny
from tests.cases import close

V = len(tiny.TOKENS)


def body(**arguments: Any) -> Body:
    model = tiny.lm_model("llama", tiny.tokenizer()).eval().requires_grad_(False)
    return Body(model.base_model, model.config, **arguments)


def keys_of(tokens: Tensor) -> KeyValues:
    """Keys that name their tokens."""
    part = tokens.double().view(1, -1, 1)
    return KeyValues(((part, part),))


def account(problem: str = "p", phase: str = "gradient") -> Account:
    return Account(problem, CostMeter(), phase)


def text(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


BODY = body()


def test_longest_common_prefix() -> None:
    store = PrefixStore()
    for stored in (text(1, 2, 3), text(1, 2, 9, 9, 9), text(7, 1, 2, 3, 4)):
        store.put("p", BODY, stored, keys_of(stored))
    for asked, length in (
        (text(1, 2, 3, 4), 3),
        (text(1, 2, 9, 9), 4),
        (text(1, 2), 2),
        (text(1, 5), 1),
        (text(5), 0),
        (text(), 0),
    ):
        found = store.get("p", BODY, asked)
        assert found.tokens.tolist() == asked[:length].tolist()
        if length:
            assert found.keys is not None
            assert found.keys.layers[0][0][0, :, 0].tolist() == asked[:length].tolist()
        else:
            assert found is EMPTY


@given(
    stored=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6),
    asked=st.lists(st.integers(0, 2), max_size=8),
    entries=st.integers(1, 4),
)
def test_a_lookup_is_the_longest_prefix_of_what_is_kept(
    stored: list[list[int]], asked: list[int], entries: int
) -> None:
    store = PrefixStore(entries)
    for row in stored:
        store.put("p", BODY, text(*row), keys_of(text(*row)))

    def common(row: list[int]) -> int:
        return next(
            (i for i, (a, b) in enumerate(zip(row, asked, strict=False)) if a != b), min(len(row), len(asked))
        )

    found = store.get("p", BODY, text(*asked))
    assert len(found) == max(common(row) for row in stored[-entries:])
    assert found.tokens.tolist() == asked[: len(found)]
    if found.keys is not None:
        assert found.keys.layers[0][0].flatten().tolist() == asked[: len(found)]


def test_problems_and_bodies_are_apart() -> None:
    store, other = PrefixStore(), body()
    store.put("p", BODY, text(1, 2), keys_of(text(1, 2)))
    assert len(store.get("q", BODY, text(1, 2))) == 0
    assert len(store.get("p", other, text(1, 2))) == 0
    store.release("p")
    assert len(store.get("p", BODY, text(1, 2))) == 0
    store.release("p")  # twice is fine


def test_nothing_is_kept_without_entries_or_keys() -> None:
    store = PrefixStore(entries=0)
    store.put("p", BODY, text(1, 2), keys_of(text(1, 2)))
    assert store.get("p", BODY, text(1, 2)) is EMPTY
    store = PrefixStore()
    store.put("p", BODY, text(1, 2), None)
    assert store.get("p", BODY, text(1, 2)) is EMPTY


def test_only_tokens_with_keys_are_kept() -> None:
    store = PrefixStore()
    store.put("p", BODY, text(1, 2, 3), keys_of(text(1, 2)))  # the last token was never run
    assert len(store.get("p", BODY, text(1, 2, 3))) == 2


def test_prefixes_run_only_what_is_new() -> None:
    runner, payer = Runner(), account()
    first = torch.arange(10) % V
    (prefix,) = runner.prefixes(BODY, [first], [payer])
    assert len(prefix) == 10
    used = payer.meter.snapshot().total
    assert (used.forward_passes, used.tokens) == (1, 10)
    assert used.flops == BODY.flops(10, 0)
    longer = torch.cat([first[:8], text(5, 6, 7)])
    runner.prefixes(BODY, [longer], [payer])
    used = payer.meter.snapshot().total
    assert (used.forward_passes, used.tokens) == (2, 13)
    assert used.flops == BODY.flops(10, 0) + BODY.flops(3, 8)
    for _ in range(20):  # type checkers look at one row at random: rows may differ in length
        found = runner.prefixes(BODY, [longer, first[:4]], [payer, payer])
    assert payer.meter.snapshot().total.forward_passes == 2
    with torch.no_grad():
        rest = torch.arange(5) + 3
        outputs = runner.forward(BODY, [Chunk(p, BODY.embed(rest)) for p in found], [payer, payer])
        for prefix, output in zip(found, outputs, strict=True):
            whole = torch.cat([prefix.tokens, rest])
            expected = BODY.module(input_ids=whole[None]).last_hidden_state[0, len(prefix) :]
            close(output.hidden, expected)


def test_prefixes_of_a_body_without_cache_cost_nothing_yet() -> None:
    part, payer = body(reuse_prefix=False), account()
    (prefix,) = Runner().prefixes(part, [torch.arange(10)], [payer])
    assert prefix.keys is None
    assert len(prefix) == 10
    assert payer.meter.snapshot().total.calls == 0


def test_suffixes_have_a_token_at_least() -> None:
    runner, payer = Runner(), account()
    row = torch.arange(6)
    runner.prefixes(BODY, [row], [payer])
    (chunk,) = runner.suffixes(BODY, [row], [payer])
    assert (len(chunk.prefix), len(chunk)) == (5, 1)
    (chunk,) = runner.suffixes(BODY, [torch.cat([row, row])], [payer])
    assert (len(chunk.prefix), len(chunk)) == (6, 6)
    (chunk,) = runner.suffixes(BODY, [row], [account("other")])
    assert (len(chunk.prefix), len(chunk)) == (0, 6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_forward_keeps_the_order_and_bills_each_row(batch_size: int) -> None:
    runner = Runner(batch_size)
    payers = [account(str(i), phase="reward") for i in range(5)]
    rows = [torch.arange(n) for n in (3, 9, 1, 4, 4)]
    with torch.no_grad():
        outputs = runner.forward(BODY, [Chunk(EMPTY, BODY.embed(r)) for r in rows], payers)
        for row, payer, output in zip(rows, payers, outputs, strict=True):
            close(output.hidden, BODY.module(input_ids=row[None]).last_hidden_state[0])
            usage = payer.meter.snapshot().phases["reward"]
            assert usage.forward_passes == 1
            assert usage.tokens == len(row)
            assert usage.flops == BODY.flops(len(row), 0)
            assert usage.seconds > 0


def test_a_pass_that_fails_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    part, payer = body(), account()

    def broken(**_: Any) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(part.module, "forward", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        Runner().forward(part, [Chunk(EMPTY, part.embed(torch.arange(4)))], [payer])
    usage = payer.meter.snapshot().total
    assert usage.forward_passes == 1
    assert usage.flops == part.flops(4, 0)
    assert usage.seconds > 0


def test_backward_passes() -> None:
    payer, runner = account(), Runner()
    (prefix,) = runner.prefixes(BODY, [torch.arange(5)], [account()])
    runner.count_backward(BODY, Chunk(prefix, BODY.embed(torch.arange(3))), payer)
    usage = payer.meter.snapshot().total
    assert (usage.forward_passes, usage.backward_passes) == (0, 1)
    assert usage.flops == BODY.backward_flops(3, 5)


def test_time_is_shared_out() -> None:
    one, two = account("1"), account("2")
    with Runner().timed([one, two], [1.0, 3.0]):
        sum(range(20000))
    first, second = (a.meter.snapshot().total.seconds for a in (one, two))
    assert first > 0
    assert second == pytest.approx(3 * first)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40),
    size=st.integers(1, 16),
    split=st.sampled_from([1.0, 64.0, 256.0, float("inf")]),
)
def test_batches_hold_every_row_once(lengths: list[int], size: int, split: float) -> None:
    groups = Runner(size, split=split).batches(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) <= size for group in groups)
    if split == float("inf"):
        assert len(groups) == -(-len(lengths) // size)


def test_a_batch_is_cut_where_padding_costs_more_than_a_pass() -> None:
    assert Runner(64, split=256).batches([300, 10, 290, 12]) == [[0, 2], [3, 1]]
    assert Runner(64, split=256).batches([300, 200]) == [[0, 1]]


def test_a_few_rows_do_not_get_a_pass_of_their_own_for_the_padding_of_all_others() -> None:
    lengths = [41] * 17 + [38] * 4 + [35] + [31] * 42
    assert [len(group) for group in Runner(64, split=128).batches(lengths)] == [22, 42]


def cut_at(order: list[int], cuts: tuple[bool, ...]) -> list[list[int]]:
    """The rows cut behind those that are marked."""
    groups = [[order[0]]]
    for i, cut in zip(order[1:], cuts, strict=True):
        if cut:
            groups.append([])
        groups[-1].append(i)
    return groups


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    size=st.integers(1, 8),
    split=st.sampled_from([0.0, 5.0, 20.0, 64.0]),
)
def test_batches_cost_as_little_as_any_in_this_order(lengths: list[int], size: int, split: float) -> None:
    def cost(groups: list[list[int]]) -> float:
        return sum(split + len(group) * max(lengths[i] for i in group) for group in groups)

    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    least = min(
        cost(groups)
        for cuts in itertools.product([False, True], repeat=len(order) - 1)
        for groups in [cut_at(order, cuts)]
        if max(map(len, groups)) <= size
    )
    assert cost(Runner(size, split=split).batches(lengths)) == least
