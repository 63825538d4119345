"""Beam search against its definition."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy import stats

from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.searches.beam_search import spread
from tests import running, tiny, toy

BOUNDARY = {"name": "length", "tokens": 3}


def beam(**arguments):
    return methods.build("beam-search", **{"sampling": running.SAMPLING, "boundary": BOUNDARY, **arguments})


def test_one_beam_and_one_expansion_is_sampling_by_steps():
    method = beam(beams=1, expansions=1)

    async def by_steps(session):
        grown = await session.rollout(method.sampling, until=method.boundary)
        while not session.ended(grown[0]):
            grown = await session.extend(grown, until=method.boundary)
        return tuple(grown[0].tokens.tolist())

    expected = tiny.drive(running.tiny_engine(), running.PROMPTS, by_steps)
    assert [s.tokens for s in running.run(running.tiny_engine(), method)] == expected


def test_it_keeps_the_best_prefixes_of_every_step():
    """The definition, written out over the session."""
    method = beam(beams=2, expansions=3)

    async def definition(session):
        done, frontier = [], None
        while True:
            if frontier is None:
                grown = await session.rollout(method.sampling, n=6, until=method.boundary)
            else:
                rows = [t for t in frontier for _ in range(6 // len(frontier))]
                grown = await session.extend(rows, until=method.boundary)
            scored = await session.score(grown)
            done += [t for t in scored if session.ended(t)]
            going = {}
            for t in scored:
                if not session.ended(t):
                    going.setdefault(tuple(t.tokens.tolist()), t)
            frontier = sorted(going.values(), key=lambda t: -t.reward)[:2]
            if not frontier or len(done) >= 6:
                best = max(done, key=lambda t: t.reward)
                return tuple(best.tokens.tolist()), len(done)

    expected = tiny.drive(running.tiny_engine(), running.PROMPTS, definition)
    solutions = running.run(running.tiny_engine(), method)
    assert [(s.tokens, s.candidates) for s in solutions] == expected


@pytest.mark.parametrize(("kept", "total"), [(1, 8), (2, 8), (3, 8), (8, 8)])
def test_the_candidates_of_a_round_are_shared_out(kept, total):
    async def prefixes(session):
        return await session.rollout(toy.FLAT, n=kept)

    rows = tiny.drive(toy.engine(), toy.PROMPT, prefixes)
    shares = Counter(id(row) for row in spread(rows, total))
    counts = [shares[id(row)] for row in rows]
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


def test_writing_by_steps_draws_from_the_language_model():
    """Chi-square of 2,000 two-step responses against their exact probabilities."""
    sampling = Sampling(temperature=1.0, max_new_tokens=2)
    boundary = beam(boundary=toy.SINGLE).boundary
    draws = 2000

    async def by_steps(session):
        grown = await session.rollout(sampling, n=draws, until=boundary)
        grown = await session.extend(grown, until=boundary)
        return [tuple(t.tokens.tolist()) for t in grown]

    counts = Counter(tiny.drive(toy.engine(), toy.PROMPT, by_steps))
    question, size = toy.LM.encode(toy.PROMPT), toy.LM.head.usable
    with torch.no_grad():
        first = toy.LM.model(input_ids=question[None]).logits[0, -1, :size].softmax(-1)
        exact = {}
        for a in range(size):
            if a in toy.LM.eos_ids:
                exact[(a,)] = float(first[a])
                continue
            text = torch.cat([question, torch.tensor([a])])
            second = toy.LM.model(input_ids=text[None]).logits[0, -1, :size].softmax(-1)
            exact.update({(a, b): float(first[a] * second[b]) for b in range(size)})
    assert set(counts) <= set(exact)
    cells = [key for key, p in exact.items() if p * draws >= 5]
    rest = [key for key in exact if key not in cells]
    observed = [counts[key] for key in cells] + [sum(counts[key] for key in rest)]
    expected = [exact[key] * draws for key in cells] + [sum(exact[key] for key in rest) * draws]
    if expected[-1] < 5:  # too rare for a cell of its own
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    assert len(cells) > 8
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-3
