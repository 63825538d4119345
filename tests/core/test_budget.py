"""Ladders, what was answered within them, and methods that run until they are spent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.budget import UNITS, Budget
from nabla.core.costs import Usage
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.core.solution import Checkpoint, answer_within
from nabla.engine.engine import Engine
from tests.tiny import causal_lm, drive, outcome


@pytest.mark.parametrize(
    ("unit", "values", "message"),
    [
        ("dollars", (1,), "Unknown budget unit"),
        ("calls", (), "positive"),
        ("calls", (0,), "positive"),
        ("calls", (-1.0, 2), "positive"),
        ("flops", (1, float("inf")), "finite"),
        ("flops", (float("nan"),), "positive"),
        ("tokens", (2, 1), "ascend"),
        ("tokens", (2, 2), "ascend"),
    ],
)
def test_impossible_ladders(unit, values, message):
    with pytest.raises(ConfigError, match=message):
        Budget(unit, values)


def test_each_unit_counts_what_its_name_says():
    usage = Usage(decode_steps=2, forward_passes=3, backward_passes=4, tokens=10, flops=11.0, seconds=12.0)
    spent = {unit: [Budget(unit, (1, value)).spent(usage) for value in (9, 10, 11, 12)] for unit in UNITS}
    assert spent["calls"] == [True, False, False, False]
    assert spent["tokens"] == [True, True, False, False]
    assert spent["flops"] == [True, True, True, False]
    assert spent["seconds"] == [True, True, True, True]
    assert Budget("calls", (3, 9)).limit == 9.0


def checkpoint(calls: int, response: str = "x") -> Checkpoint:
    return Checkpoint(Usage(decode_steps=calls), (1,), response, None, True)


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 60))
def test_the_answer_within_a_budget_is_the_last_one_that_fits(costs, limit):
    found = answer_within([checkpoint(c, str(c)) for c in sorted(costs)], "calls", limit)
    fitting = [c for c in costs if c <= limit]
    assert (found is None) == (not fitting)
    if found is not None:
        assert found.response == str(max(fitting))


def test_a_checkpoint_is_json_ready():
    found = checkpoint(3).to_dict()
    assert found["tokens"] == [1]
    assert found["usage"]["calls"] == 3


@pytest.fixture(scope="module")
def models():
    return causal_lm(), outcome()


@pytest.fixture(scope="module")
def prompt():
    from nabla.core.prompt import Prompt

    return Prompt.of("1+2=", id="p")


def rounds_of(engine, prompt, *, rollouts=1, wanted=3, report=True):
    """Runs a method of endless rounds; (calls before each round, checkpoints, cost)."""

    async def method(session):
        begins = []
        while session.proceed(len(begins) < wanted):
            begins.append(session.cost.total.calls)
            if rollouts:
                trajectories = await session.rollout(Sampling(temperature=1.0, max_new_tokens=6), n=rollouts)
                if report:
                    session.report(trajectories[-1])
        return begins, list(session.checkpoints), session.cost.total

    return drive(engine, prompt, method)


def test_without_budgets_the_method_decides(models, prompt):
    begins, _, _ = rounds_of(Engine(*models), prompt, wanted=3)
    assert len(begins) == 3


def test_with_budgets_the_largest_value_of_each_decides(models, prompt):
    budgets = [Budget("calls", (5, 40)), Budget("tokens", (10, 30))]
    begins, _, usage = rounds_of(Engine(*models, budgets=budgets), prompt, wanted=0)
    assert usage.calls >= 40
    assert usage.tokens >= 30
    assert len(begins) > 1
    one = rounds_of(Engine(*models, budgets=budgets[:1]), prompt, wanted=0)
    assert all(calls < 40 for calls in one[0])


def test_a_round_that_calls_no_model_is_the_last(models, prompt):
    budget = Budget("calls", (1000,))
    begins, _, usage = rounds_of(Engine(*models, budgets=[budget]), prompt, rollouts=0)
    assert len(begins) == 1
    assert usage.calls == 0


def test_checkpoints_carry_ascending_costs_and_the_text(models, prompt):
    _, checkpoints, usage = rounds_of(Engine(*models, budgets=[Budget("calls", (60,))]), prompt)
    costs = [c.usage.calls for c in checkpoints]
    assert costs == sorted(costs)
    assert 0 < costs[0] <= costs[-1] <= usage.calls
    lm = models[0]
    import torch

    assert all(c.response == lm.decode(torch.tensor(c.tokens)) for c in checkpoints)


def test_the_same_answer_again_is_no_new_checkpoint(models, prompt):
    async def method(session):
        (found,) = await session.rollout(Sampling(temperature=0.0, max_new_tokens=6))
        session.report(found)
        session.report(found)
        before = len(session.checkpoints)
        session.report(found.with_reward(1.0))
        return before, len(session.checkpoints)

    assert drive(Engine(*models), prompt, method) == (1, 2)


@pytest.mark.parametrize("name", ["greedy", "best-of-n", "nabla-reasoner"])
def test_a_solution_ends_with_its_own_checkpoint(name, models, prompt):
    from nabla.methods.base import methods

    limit = {"max_new_tokens": 8}
    spec = {"name": name, **(limit if name == "greedy" else {"sampling": limit})}
    engine = Engine(*models, budgets=[Budget("calls", (30,))])
    solution = drive(engine, prompt, methods.build(spec).solve)
    last = solution.checkpoints[-1]
    assert (last.response, last.tokens, last.reward) == (solution.response, solution.tokens, solution.reward)
    assert last.usage.calls <= solution.cost.total.calls
