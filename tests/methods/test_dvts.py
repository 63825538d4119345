"""DVTS against its definition."""

from __future__ import annotations

from nabla.methods.base import methods
from tests import running, tiny, toy

STEPS = {"sampling": running.SAMPLING, "boundary": {"name": "length", "tokens": 3}}


def test_each_tree_is_greedy_and_the_best_complete_response_wins():
    method = methods.build("dvts", trees=3, expansions=2, **STEPS)

    async def definition(session):
        trees, done = None, []
        while trees is None or trees:
            if trees is None:
                grown = await session.rollout(method.sampling, n=6, until=method.boundary)
            else:
                grown = await session.extend([t for t in trees for _ in range(2)], until=method.boundary)
            scored = await session.score(grown)
            done += [t for t in scored if session.ended(t)]
            pairs = zip(scored[::2], scored[1::2], strict=True)
            kept = [a if a.reward >= b.reward else b for a, b in pairs]
            trees = [t for t in kept if not session.ended(t)]
        best = max(done, key=lambda t: t.reward)
        return tuple(best.tokens.tolist()), len(done)

    expected = tiny.drive(running.tiny_engine(), running.PROMPTS, definition)
    solutions = running.run(running.tiny_engine(), method)
    assert [(s.tokens, s.candidates) for s in solutions] == expected


def test_one_tree_is_beam_search_with_one_beam_where_nothing_ends_early():
    """Without end-of-sequence tokens both keep the best of every step."""
    steps = {"sampling": toy.FLAT, "boundary": toy.SINGLE}
    beams = methods.build("beam-search", beams=1, expansions=4, **steps)
    trees = methods.build("dvts", trees=1, expansions=4, **steps)
    compared = 0
    for seed in range(30):
        (left,) = running.run(toy.engine(seed=seed), beams, [toy.PROMPT])
        (right,) = running.run(toy.engine(seed=seed), trees, [toy.PROMPT])
        if left.candidates == right.candidates == 4:  # none ended before the length limit
            assert left.tokens == right.tokens
            compared += 1
    assert compared > 5


def test_a_budget_adds_trees():
    method = methods.build("dvts", trees=1, expansions=2, **STEPS)
    plain = running.run(running.tiny_engine(), method)
    rich = running.run(running.tiny_engine(**toy.calls(400.0)), method)
    for few, many in zip(plain, rich, strict=True):
        assert many.candidates > few.candidates
        assert many.checkpoints[0].tokens == few.checkpoints[0].tokens
