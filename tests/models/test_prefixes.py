"""The prefix store: blocks stored once, a budget of bytes, and what is found of a text."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.models import prefixes as module
from nabla.models.body import EMPTY, Body, Chunk, KeyValues
from nabla.models.deferred import DeferredStore
from nabla.models.keys import BlockKeys
from nabla.models.ledger import ByteBudget
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from tests import tiny
from tests.cases import close

#: Tokens per block here, and bytes of a token: two layers of keys and values, two heads of three float64.
SMALL = 2
TOKEN = 2 * 2 * 2 * 3 * 8


def body(**arguments: Any) -> Body:
    model = tiny.lm_model("llama", tiny.tokenizer()).eval().requires_grad_(False)
    return Body(model.base_model, model.config, **arguments)


BODY, OTHER = body(), body()


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", SMALL)
        yield


def states(tokens: list[int]) -> Tensor:
    """A number for each token that depends on all before it, as keys do ``[n]``."""
    found, state = [], 0.0
    for token in tokens:
        state = (7 * state + token + 1) % 100_003
        found.append(state)
    return torch.tensor(found, dtype=torch.float64)


def keys_of(tokens: list[int]) -> KeyValues:
    part = states(tokens).view(1, -1, 1).expand(2, -1, 3)
    return KeyValues(((part, part + 0.25), (part + 0.5, part + 0.75)))


def put(store: PrefixStore, problem: str, *tokens: int, part: Body = BODY) -> Any:
    return store.put(problem, part, torch.tensor(tokens), keys_of(list(tokens)))


def found(store: PrefixStore, problem: str, *tokens: int, part: Body = BODY) -> int:
    """Length of what is found, which is checked."""
    prefix = store.get(problem, part, torch.tensor(tokens, dtype=torch.long))
    assert prefix.tokens.tolist() == list(tokens[: len(prefix)])
    if prefix.keys is None:
        assert len(prefix) == 0
        return 0
    assert prefix.keys.length == len(prefix)
    for mine, expected in zip(prefix.keys.layers, keys_of(list(tokens[: len(prefix)])).layers, strict=True):
        assert torch.equal(mine[0], expected[0])
        assert torch.equal(mine[1], expected[1])
    return len(prefix)


def blocks(store: PrefixStore) -> list[Any]:
    """All that are stored."""
    found, open_nodes = [], [tree.root for tree in store._trees.values()]
    while open_nodes:
        node = open_nodes.pop()
        open_nodes += node.children.values()
        found += [] if node.block is None else [node.block]
    return found


def test_a_beginning_is_stored_once_for_texts_and_problems() -> None:
    store = PrefixStore()
    put(store, "p", 1, 2, 3, 4, 5)
    assert store.used == 5 * TOKEN
    put(store, "p", 1, 2, 3, 9)  # shares its first block
    assert store.used == 7 * TOKEN
    put(store, "q", 1, 2, 3, 4, 7)  # and so does another problem, its two first
    assert store.used == store.budget.used == 8 * TOKEN
    mine, other = (store.get(name, BODY, torch.tensor([1, 2, 3, 4])).keys for name in "pq")
    assert mine.blocks[1] is other.blocks[1]
    store.release("p")
    assert store.used == 5 * TOKEN
    assert found(store, "q", 1, 2, 3, 4, 7) == 5
    store.release("q")
    assert store.used == store.budget.used == 0
    assert not store._trees
    assert (store.peak, store.peak_problems) == (8 * TOKEN, 2)


def test_a_problem_finds_only_what_it_has_put() -> None:
    """Or what it computes would depend on its neighbours."""
    store = PrefixStore()
    put(store, "p", 1, 2, 3, 4)
    assert found(store, "q", 1, 2, 3, 4) == 0
    put(store, "q", 1, 2)
    assert found(store, "q", 1, 2, 3, 4) == 2
    put(store, "q", 1, 2, 3, 4, part=OTHER)
    assert found(store, "q", 1, 2, 3, 4) == 2


def test_nothing_that_is_stored_keeps_a_batch_alive() -> None:
    store = PrefixStore()
    batch = torch.zeros(64, 2, 100, 3, dtype=torch.float64)
    store.put("p", BODY, torch.arange(5), KeyValues(((batch[3, :, :5], batch[4, :, :5]),)))
    for block in blocks(store):
        for part in block.tensors:
            assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
            assert not part.requires_grad
        for group in block.groups:
            assert group.sample.untyped_storage().nbytes() == 0


def test_keys_with_a_graph_leave_it_behind() -> None:
    store, part = PrefixStore(), torch.zeros(2, 4, 3, requires_grad=True)
    store.put("p", BODY, torch.arange(4), KeyValues(((part * 2, part * 3),)))
    assert all(not p.requires_grad for block in blocks(store) for p in block.tensors)


def test_ends_give_way_before_beginnings() -> None:
    store = PrefixStore(budget=ByteBudget(6 * TOKEN))
    put(store, "p", 1, 2, 3, 4, 5, 6)
    put(store, "q", 7, 8)
    assert found(store, "p", 1, 2, 3, 4, 5, 6) == 4
    assert found(store, "q", 7, 8) == 2
    prefix = store.get("p", BODY, torch.tensor([1, 2, 3, 4, 5, 6]))
    assert prefix.lost == 2
    put(store, "r", 9, 9)  # what was asked for last stays
    assert found(store, "p", 1, 2, 3, 4) == 4
    assert found(store, "q", 7, 8) == 0


def test_what_gave_way_is_back_when_it_is_put_again() -> None:
    store = PrefixStore(budget=ByteBudget(4 * TOKEN))
    put(store, "p", 1, 2, 3, 4)
    put(store, "q", 7, 8, 9, 9)
    assert found(store, "p", 1, 2, 3, 4) == 0
    assert put(store, "p", 1, 2, 3, 4).length == 4
    assert found(store, "p", 1, 2, 3, 4) == 4


def test_a_text_larger_than_the_budget_keeps_its_beginning() -> None:
    store = PrefixStore(budget=ByteBudget(2 * SMALL * TOKEN))
    assert put(store, "p", *range(10)) is None
    assert found(store, "p", *range(10)) == 4


def test_a_copy_that_fails_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    store, count = PrefixStore(), 0
    original = KeyValues.block

    def block(self: KeyValues, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise torch.OutOfMemoryError("full")
        return original(self, *arguments)

    monkeypatch.setattr(KeyValues, "block", block)
    with pytest.raises(torch.OutOfMemoryError):
        put(store, "p", 1, 2, 3, 4)
    assert store.used == store.budget.used == SMALL * TOKEN
    assert found(store, "p", 1, 2, 3, 4) == 2
    store.release("p")
    assert store.used == store.budget.used == 0


texts = st.lists(st.integers(0, 1), min_size=1, max_size=9)
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "get", "release"]), st.sampled_from("pqr"), st.booleans(), texts
    ),
    max_size=30,
)


@given(steps=steps, room=st.one_of(st.none(), st.integers(0, 14)), entries=st.integers(1, 3))
def test_a_budget_changes_how_much_is_found_and_nothing_else(
    steps: list[Any], room: int | None, entries: int
) -> None:
    """Beside a model of what the last texts have in common with what is asked: one block, none, no limit."""
    limit = None if room is None else room * TOKEN
    store = PrefixStore(entries, ByteBudget(limit))
    kept: dict[Any, deque[list[int]]] = defaultdict(lambda: deque(maxlen=entries))
    for what, problem, first, tokens in steps:
        part = BODY if first else OTHER
        if what == "put":
            put(store, problem, *tokens, part=part)
            kept[problem, part].append(tokens)
        elif what == "release":
            store.release(problem)
            kept.pop((problem, BODY), None)
            kept.pop((problem, OTHER), None)
        else:
            expected = 0
            for text in kept[problem, part]:
                same = 0
                while same < min(len(text), len(tokens)) and text[same] == tokens[same]:
                    same += 1
                expected = max(expected, same)
            length = found(store, problem, *tokens, part=part)
            prefix = store.get(problem, part, torch.tensor(tokens))
            assert length + prefix.lost == expected
            if limit is None:
                assert length == expected
        there = blocks(store)
        assert store.used == store.budget.used == TOKEN * sum(block.length for block in there)
        assert limit is None or store.used <= limit
        # Each text's blocks hang together from its beginning on: nothing is kept that nobody can reach.
        for tree in store._trees.values():
            nodes = list(tree.root.children.values())
            while nodes:
                node = nodes.pop()
                assert node.holders > 0
                assert node.block is not None or all(c.block is None for c in node.children.values())
                nodes += node.children.values()
    for problem in "pqr":
        store.release(problem)
    assert store.used == store.budget.used == 0
    assert not store._trees


@pytest.mark.parametrize("room", [0, 1, None])
def test_states_behind_any_budget_are_the_same(room: int | None) -> None:
    """A budget of one block: what gave way is run again, and counted."""
    part = body()
    (first,) = part.run([Chunk(EMPTY, part.embed(torch.arange(1)))], keep=True)
    assert first.keys is not None
    token = sum(group.bytes_per_token for group in first.keys.groups())
    runner = Runner(store=PrefixStore(budget=ByteBudget(None if room is None else room * SMALL * token)))
    payers = [Account(name, CostMeter(), "gradient") for name in "pq"]
    rows = [torch.arange(9) % 7, torch.arange(7) % 5]
    with torch.no_grad():
        for turn in range(3):
            known = runner.prefixes(part, rows, payers)
            rest = [torch.tensor([turn, 1, 2]), torch.tensor([turn, 3])]
            chunks = [Chunk(k, part.embed(r)) for k, r in zip(known, rest, strict=True)]
            for row, end, output in zip(rows, rest, runner.forward(part, chunks, payers), strict=True):
                whole = torch.cat([row, end])
                expected = part.module(input_ids=whole[None]).last_hidden_state[0, len(row) :]
                close(output.hidden, expected)
    costs = [payer.meter.snapshot() for payer in payers]
    lost = [cost.counts.get("prefix_tokens_lost", 0) for cost in costs]
    tokens = [cost.total.tokens for cost in costs]
    if room is None:
        assert lost == [0, 0]
        assert tokens == [9 + 9, 7 + 6]
    else:
        # Both begin with the block that there is room for.
        assert lost == [2 * (9 - SMALL * room), 2 * (7 - SMALL * room)]
        assert tokens == [9 + 9 + lost[0], 7 + 6 + lost[1]]


# -- attempts that are taken back ------------------------------------------------------------------------


TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=7)


@given(
    first=st.lists(TEXTS, max_size=3),
    later=st.lists(TEXTS, max_size=4),
    probes=st.lists(TEXTS, min_size=1, max_size=3),
)
def test_a_snapshot_brings_back_what_was_there(
    first: list[list[int]], later: list[list[int]], probes: list[list[int]]
) -> None:
    """Whatever is put and forgotten meanwhile: the same prefixes are found, and the same bytes are used."""
    store = PrefixStore(entries=2)
    for text in first:
        put(store, "p", *text)
    put(store, "q", 0, 1)
    before = [found(store, "p", *probe) for probe in probes], store.used
    snapshot = store.snapshot("p")
    for text in later:
        put(store, "p", *text)
    store.restore("p", snapshot)
    assert ([found(store, "p", *probe) for probe in probes], store.used) == before
    for problem in ("p", "q"):
        store.release(problem)
    assert store.used == store.budget.used == 0


def test_a_deferred_store_tells_what_was_there_until_it_commits() -> None:
    store = PrefixStore(entries=2)
    put(store, "p", 1, 2)
    deferred = DeferredStore(store)
    put(deferred, "p", 1, 2, 3)
    mark = deferred.snapshot("p")
    put(deferred, "p", 1, 2, 3, 4)
    deferred.restore("p", mark)
    assert found(deferred, "p", 1, 2, 3, 4) == found(store, "p", 1, 2, 3, 4) == 2
    deferred.commit()
    assert found(store, "p", 1, 2, 3, 4) == 3


def test_what_there_is_no_memory_for_is_left_out_once_requests_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = PrefixStore()
    deferred = DeferredStore(store)
    put(deferred, "p", 1, 2, 3, 4)
    put(deferred, "q", 5, 6)
    original, calls = BlockKeys.block, []

    def block(self: BlockKeys, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("full")
        return original(self, *arguments)

    monkeypatch.setattr(BlockKeys, "block", block)
    deferred.commit()
    assert found(store, "p", 1, 2, 3, 4) == 2
    assert store.get("p", BODY, torch.tensor([1, 2, 3, 4])).lost == 2
    assert found(store, "q", 5, 6) == 2
    assert store.used == store.budget.used == 2 * SMALL * TOKEN


def test_a_deferred_store_keeps_no_batch_alive() -> None:
    """A row is a view of its batch, and many batches may run before the end."""
    batch = torch.zeros(64, 2, 4, 3)
    store = PrefixStore()
    deferred = DeferredStore(store)
    keys = KeyValues(((batch[0, :, :2], batch[1, :, :2]),))
    deferred.put("p", BODY, torch.tensor([1, 2]), keys)
    kept = [part for (_, _, own) in deferred.snapshot("p") for layer in own.layers for part in layer]
    assert kept
    assert all(part.untyped_storage().data_ptr() != batch.untyped_storage().data_ptr() for part in kept)
    deferred.commit()
    assert len(store.get("p", BODY, torch.tensor([1, 2]))) == 2
