"""Coordinate search: exact values, never a step up, a fixed length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.rewards.function import FunctionReward
from tests.cases import FINISHED, UNFINISHED, case
from tests.running import (
    SAMPLING,
    assert_anytime,
    assert_same_alone_and_together,
    facts,
    run,
    tiny_engine,
)

WEIGHTS = {"reward": 1.0, "likelihood": 0.3}


def method(**changes):
    spec = {"objective": {"name": "sum", "weights": WEIGHTS}, "steps": 3, "batch": 6, "top_k": 4}
    return methods.build({"name": "coordinate-search", "sampling": SAMPLING, **spec, **changes})


def dense_value(c, tokens):
    y = c.dense.one_hot(tokens)
    with torch.no_grad():
        total = -WEIGHTS["likelihood"] * c.dense.log_likelihoods(y).sum()
        return float(total - WEIGHTS["reward"] * c.dense.reward(y, tokens))


@pytest.mark.parametrize("support", [None, 6])
@pytest.mark.parametrize("text", [FINISHED, UNFINISHED])
def test_values_are_exact_and_never_go_up(text, support):
    c = case()
    search = method(support=support)
    start = c.trajectory(text)

    async def climb(session):
        (value,) = await search.evaluate(session, start, [start.tokens])
        path, current = [(start, value)], start
        for step in range(8):
            noise = session.generator("swap", 0, step)
            current, value = await search.swap(session, current, value, noise)
            path.append((current, value))
        return path

    path = c.run(climb)
    for trajectory, _ in path[1:]:  # known from the swap's evaluation, and not scored again
        y = c.dense.one_hot(trajectory.tokens)
        with torch.no_grad():
            assert trajectory.reward == pytest.approx(float(c.dense.reward(y, trajectory.tokens)), rel=1e-9)
    values = [value for _, value in path]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
    specials = {*c.lm.eos_ids, *c.lm.tokenizer.all_special_ids}
    for (old, _), (new, value) in pairwise(path):
        assert value == pytest.approx(dense_value(c, new.tokens), rel=1e-9)
        changed = (old.tokens != new.tokens).nonzero()[:, 0].tolist()
        assert len(changed) == (new is not old)
        assert len(new) == len(start)
        assert new.finished == start.finished
        for position in changed:
            assert int(new.tokens[position]) not in specials
            assert int(old.tokens[position]) not in c.lm.eos_ids


def test_the_gradient_is_the_guide():
    """With one candidate per position, every swap is the argmin of the dense gradient's row."""
    c = case()
    search = method(top_k=1, batch=32)
    start = c.trajectory(FINISHED)
    seen = []

    async def step(session):
        (value,) = await search.evaluate(session, start, [start.tokens])
        values = session.values

        async def watched(current, objective, texts):
            seen.extend(texts)
            return await values(current, objective, texts)

        session.values = watched
        return await search.swap(session, start, value, session.generator("swap"))

    c.run(step)
    parts = c.dense.term_gradients(start.tokens)
    rows = WEIGHTS["reward"] * parts["reward"] + WEIGHTS["likelihood"] * parts["likelihood"]
    rows[:, sorted({*c.lm.eos_ids, *c.lm.tokenizer.all_special_ids})] = float("inf")
    rows[torch.arange(len(start)), start.tokens] = float("inf")
    best = rows.argmin(-1)
    assert len(seen) == 32
    for text in seen:
        (position,) = (text != start.tokens).nonzero()[:, 0].tolist()
        assert int(text[position]) == int(best[position])


def test_alone_and_together():
    assert_same_alone_and_together(method(rounds=2))


def test_under_a_budget():
    assert_anytime(method(), (60.0, 150.0))


def test_it_takes_swaps_and_counts_them():
    solutions = run(tiny_engine(), method(steps=5))
    assert any(s.cost.counts.get("swaps_taken", 0) for s in solutions)
    for solution in solutions:
        assert solution.candidates == 1 + solution.cost.counts.get("swaps_taken", 0)


def test_likelihood_alone_needs_no_reward():
    engine = tiny_engine(reward=False, budgets=[Budget("calls", (150.0,))])
    for solution in run(engine, method(objective="likelihood")):
        assert solution.reward is None
        assert solution.tokens == solution.checkpoints[-1].tokens


def test_one_token_responses_have_an_end():
    short = method(sampling=Sampling(temperature=1.0, max_new_tokens=1), top_k=2, batch=3)
    engine = tiny_engine(budgets=[Budget("calls", (60.0,))])
    assert facts(run(engine, short)) == facts(run(engine, short))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"support": 1}, "support must be at least 2"),
        ({"objective": "kl"}, "compares texts"),
        ({"objective": {"name": "sum", "weights": {"reward": 1.0, "kl": 0.1}}}, "compares texts"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        method(**changes)


def test_a_missing_reward():
    engine = tiny_engine(reward=False)
    with pytest.raises(ConfigError, match="differentiable reward"):
        method().check(engine)
    with pytest.raises(ConfigError, match="differentiable reward"):
        method().check(type(engine)(engine.lm, FunctionReward(lambda prompt, response: 0.0)))


def test_a_spent_budget_ends_a_round_between_two_steps():
    engine = tiny_engine(budgets=[Budget("calls", (1.0,))])
    for solution in run(engine, method(steps=50)):
        assert "swaps_evaluated" not in solution.cost.counts
        assert solution.candidates == 1
