"""Rows that join, end, wait for room and begin again: each writes, and costs, what it does alone."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import pytest
import torch

from nabla.core.errors import NablaError, NumericalError
from nabla.core.sampling import Sampling
from nabla.models.causal_lm import CausalLM
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.rollouts.base import Continuation, Opening
from nabla.rollouts.decoder import Decoder
from tests import tiny
from tests.models.test_real_models import phi3
from tests.rollouts.test_huggingface import PROMPTS, opening, run, same
from tests.tiny import TOKENS, lm_model, tokenizer


def many(lm: CausalLM, count: int, seed: int = 0, longest: int = 30) -> list[Opening]:
    draw = random.Random(seed)
    return [
        opening(
            lm,
            draw.choice(PROMPTS),
            Sampling(temperature=draw.choice([0.0, 0.7, 1.5]), max_new_tokens=draw.randint(2, longest)),
            key=seed * 1000 + i,
            given_=draw.choice(["", "3"]),
            problem=f"{seed}-{i}",
        )
        for i in range(count)
    ]


def alone(lm: CausalLM, openings: list[Opening]) -> list[tuple[Continuation, Any]]:
    """What each writes by itself, and what it costs."""
    found = []
    for item in openings:
        copy = opening(lm, "0", item.sampling)
        account = copy.account
        own = Opening(item.prompt, item.response, item.sampling, item.key, account, item.until)
        (row,) = run(lm, [own])
        found.append((row, spent(own)))
    return found


def spent(item: Opening) -> tuple[Any, ...]:
    usage = item.account.meter.snapshot().total
    return usage.decode_steps, usage.forward_passes, usage.tokens, round(usage.flops)


def written(
    decoder: Decoder, openings: list[Opening], seed: int
) -> tuple[list[Continuation | NablaError], int]:
    """Hands openings in at random moments; what was written, and the most rows at a time."""
    draw, left, numbers = random.Random(seed), list(openings), list[int]()
    found: dict[int, Continuation | NablaError] = {}
    most = 0
    while left or decoder.busy:
        if left and (not decoder.busy or draw.random() < 0.3):
            numbers += decoder.submit([left.pop(0) for _ in range(min(draw.randint(1, 3), len(left)))])
        found |= decoder.advance(draw.randint(1, 5), 1)
        most = max(most, decoder.live)
    return [found[number] for number in numbers], most


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3", "mistral"])
@pytest.mark.parametrize("places", [1, 3, 64])
def test_rows_that_join_write_what_they_write_alone(arch: str, places: int) -> None:
    lm = tiny.causal_lm(arch)
    openings = many(lm, 9, seed=places)
    expected = alone(lm, openings)
    rows, most = written(Decoder(lm, Runner(), places), openings, places)
    assert most <= places
    for item, row, (one, cost) in zip(openings, rows, expected, strict=True):
        assert isinstance(row, Continuation)
        same(row, one)
        assert spent(item) == cost


def test_rows_wait_where_bytes_are_few() -> None:
    """Two rows of the longest text fit, and one that is longer than all bytes is written alone."""
    lm = tiny.causal_lm("llama")
    openings = many(lm, 8, longest=20)
    expected = alone(lm, openings)
    rooms = [lm.vocabulary.room(len(item.prompt), item.sampling.max_new_tokens) for item in openings]
    longest = max(len(item.prompt) + room for item, room in zip(openings, rooms, strict=True))
    for tokens, most_rows in ((2 * longest, 3), (1, 1)):
        for item in openings:
            item.account.meter.roll_back(type(item.account.meter)().snapshot())
        decoder = Decoder(lm, Runner(), 64, lm.body.cache_bytes(tokens))
        rows, most = written(decoder, openings, 0)
        assert 1 <= most <= most_rows if tokens == 1 else most > 1
        for row, (one, _) in zip(rows, expected, strict=True):
            assert isinstance(row, Continuation)
            same(row, one)


@pytest.mark.parametrize("seed", range(4))
def test_steps_that_fail_at_random_change_nothing(seed: int) -> None:
    """Neither the texts nor the counts, whenever it happens and whoever is on the way."""
    lm = tiny.causal_lm("llama")
    openings = many(lm, 9, seed=50 + seed)
    expected = alone(lm, openings)
    draw, step, admit = random.Random(seed), Decoder._step, Decoder._admit
    faults = [torch.OutOfMemoryError("injected"), RuntimeError("injected"), OSError("injected")]
    left = [0]

    def failing(original: Any) -> Any:
        def call(decoder: Decoder) -> None:
            left[0] -= 1
            early = draw.random() < 0.5
            if not early:
                original(decoder)
            if left[0] <= 0 and draw.random() < 0.1:
                left[0] = 80  # a row that is alone gets through at its second try
                raise draw.choice(faults)
            if early:
                original(decoder)

        return call

    with (
        mock.patch.object(Decoder, "_step", failing(step)),
        mock.patch.object(Decoder, "_admit", failing(admit)),
    ):
        rows, _ = written(Decoder(lm, Runner(), 4), openings, seed)
    assert left[0] > -500  # there was a fault
    for item, row, (one, cost) in zip(openings, rows, expected, strict=True):
        assert isinstance(row, Continuation), row
        same(row, one)
        assert spent(item) == cost


def test_who_comes_after_nan_is_not_nan() -> None:
    """A place is wiped before another row takes it: NaN times a weight of 0 is NaN."""
    tok = tokenizer()
    lm = CausalLM(lm_model("llama", tok), tok)
    sampling = Sampling(temperature=0, max_new_tokens=6)
    sound = [opening(lm, "1+2=", sampling, key=i, problem=f"s{i}") for i in range(3)]
    (expected, *_) = run(lm, sound)
    assert TOKENS.index("5") not in expected.tokens.tolist()
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[TOKENS.index("5")] = float("nan")
    short = Sampling(temperature=0, max_new_tokens=2)
    broken = [opening(lm, "1+5=5;5;5", short, key=i, problem=f"b{i}") for i in range(2)]
    decoder = Decoder(lm, Runner(), 3)
    numbers = decoder.submit([broken[0], sound[0], broken[1], sound[1], sound[2]])
    found: dict[int, Any] = {}
    while decoder.busy:
        found |= decoder.advance(64, 5)
    rows = [found[number] for number in numbers]
    assert [isinstance(row, NumericalError) for row in rows] == [True, False, True, False, False]
    for row in rows:
        if isinstance(row, Continuation):
            assert row.tokens.tolist() == expected.tokens.tolist()


def test_idle_rows_are_counted() -> None:
    lm = tiny.causal_lm("llama")
    openings = many(lm, 6, seed=3)
    runner = Runner()
    rows, _ = written(Decoder(lm, runner, 3), openings, 0)
    steps = sum(item.account.meter.snapshot().total.decode_steps for item in openings)
    assert runner.occupancy.rows - runner.occupancy.idle == steps
    assert len(rows) == 6


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("injected"), RuntimeError("injected")])
def test_a_text_that_cannot_be_stored_has_been_written(fault: Exception) -> None:
    """Its rows come back, and are counted once."""
    lm = tiny.causal_lm("llama")
    openings = many(lm, 4, seed=9)
    expected = alone(lm, openings)
    put, calls = PrefixStore.put, []

    def failing(store: PrefixStore, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise fault
        return put(store, *arguments)

    decoder = Decoder(lm, Runner(), 4)
    numbers, found = decoder.submit(openings), {}
    with mock.patch.object(PrefixStore, "put", failing):
        for _ in range(8):
            found |= decoder.advance(64, 4)
    assert len(calls) == 4
    for item, number, (one, cost) in zip(openings, numbers, expected, strict=True):
        same(found[number], one)
        assert spent(item) == cost


def test_places_that_memory_has_taken_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a calm while, and later after each further fault; never more than there were."""
    monkeypatch.setattr("nabla.rollouts.decoder.RECOVERY", 8)
    lm = tiny.causal_lm("llama")
    decoder, step, faults = Decoder(lm, Runner(), 6), Decoder._step, iter((3, 40))
    calls, places, next_fault = 0, list[int](), next(faults)

    def failing(this: Decoder) -> None:
        nonlocal calls, next_fault
        calls += 1
        if calls == next_fault:
            next_fault = next(faults, -1)
            raise torch.OutOfMemoryError("injected")
        step(this)
        places.append(this.places)

    openings = many(lm, 70, seed=7, longest=12)
    expected = alone(lm, openings)
    with mock.patch.object(Decoder, "_step", failing):
        numbers = decoder.submit(openings)
        found: dict[int, Continuation | NablaError] = {}
        while decoder.busy:
            found |= decoder.advance(5, 1)
    assert places[0] == decoder.places == max(places) == 6
    assert min(places) == 3
    low = [i for i, count in enumerate(places) if count < 6]
    assert low[0] < 5
    for number, item, (one, cost) in zip(numbers, openings, expected, strict=True):
        row = found[number]
        assert isinstance(row, Continuation)
        same(row, one)
        assert spent(item) == cost


@pytest.mark.parametrize("kind", ["learned positions", "longrope"])
def test_a_row_at_the_models_last_position_waits_without_going_on(kind: str) -> None:
    """It has ended and its place grows with the others: a position behind the last one would be in no table,
    or exchange the table of its neighbours."""
    learned = kind == "learned positions"
    lm = tiny.causal_lm("gpt2", n_positions=32) if learned else CausalLM(phi3().double(), tokenizer())
    lm.head.block(torch.tensor(lm.eos_ids))  # rows end where the model's positions do
    texts = ["1+2=3+4", *["1"] * 7]
    rows = [opening(lm, text, Sampling(max_new_tokens=60), key=i) for i, text in enumerate(texts)]
    expected = alone(lm, rows)
    with mock.patch.object(Decoder, "_begin_again", side_effect=AssertionError("a step has failed")):
        found = run(lm, rows)
    lengths = [len(one.tokens) for one, _ in expected]
    assert 0 < lengths[0] < min(lengths[1:])
    for row, (one, _) in zip(found, expected, strict=True):
        assert isinstance(row, Continuation)
        same(row, one)
