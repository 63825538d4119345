"""Both orders of Tree of Thoughts on trees that can be enumerated."""

from __future__ import annotations

import pytest

from nabla.methods.base import methods
from tests import running, toy

STEPS = {"sampling": toy.FLAT, "boundary": toy.SINGLE}
EXHAUSTIVE = {"thoughts": 50, "breadth": 10_000, "max_expansions": 10_000}


def build(order, **arguments):
    return methods.build("tree-of-thoughts", order=order, **{**STEPS, **arguments})


@pytest.mark.parametrize("order", ["bfs", "dfs"])
def test_exhaustive_search_finds_the_best_response(order):
    (solution,) = running.run(toy.engine(), build(order, **EXHAUSTIVE), [toy.PROMPT])
    assert solution.reward == toy.highest()


@pytest.mark.parametrize("order", ["bfs", "dfs"])
def test_states_at_or_below_the_threshold_are_not_expanded(order):
    reward = toy.Counted()
    running.run(toy.engine(reward), build(order, threshold=0.0, **EXHAUSTIVE), [toy.PROMPT])
    deep = {r[:end] for r in reward.seen for end in range(1, len(r))}  # texts with something behind them
    assert deep
    assert all(toy.hashed(toy.PROMPT.text, prefix) > 0 for prefix in deep)
    everything = toy.Counted()
    running.run(toy.engine(everything), build(order, **EXHAUSTIVE), [toy.PROMPT])
    assert set(reward.seen) < set(everything.seen)


@pytest.mark.parametrize("order", ["bfs", "dfs"])
def test_a_threshold_that_prunes_everything_still_leaves_an_answer(order):
    (solution,) = running.run(toy.engine(), build(order, threshold=1e9), [toy.PROMPT])
    assert solution.finished or len(solution.tokens) == toy.FLAT.max_new_tokens


def test_depth_first_goes_down_the_best_branch_first():
    order = []

    def reward(prompt, response):
        order.append(response)
        return toy.hashed(prompt, response)

    running.run(toy.engine(reward), build("dfs", thoughts=6, max_expansions=2), [toy.PROMPT])
    first = [r for r in order if len(r) <= 1]
    second = [r for r in order if len(r) == 2]
    going = [r for r in first if r]
    assert second
    assert {r[0] for r in second} == {max(going, key=lambda r: toy.hashed(toy.PROMPT.text, r))}


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_depth_first_stops_after_its_expansions(limit):
    method = build("dfs", thoughts=3, max_expansions=limit)
    engine = toy.engine(continuous=False)  # rollouts in the batches asked for
    asked = []
    rollouts = engine.workspace.handlers["rollout"]

    def watched(requests):
        asked.append(len(requests))
        return rollouts(requests)

    engine.workspace.handlers["rollout"] = watched
    running.run(engine, method, [toy.PROMPT])
    assert asked[:limit] == [3] * limit
    assert len(asked) <= limit + 1  # the last one writes an open state to its end
    assert set(asked[limit:]) <= {1}


def test_breadth_first_keeps_no_more_than_its_breadth():
    engine = toy.engine(continuous=False)  # rollouts in the batches asked for
    asked = []
    rollouts = engine.workspace.handlers["rollout"]

    def watched(requests):
        asked.append(len(requests))
        return rollouts(requests)

    engine.workspace.handlers["rollout"] = watched
    running.run(engine, build("bfs", thoughts=5, breadth=2), [toy.PROMPT])
    assert asked[0] == 5
    assert all(count in (5, 10) for count in asked[1:])
