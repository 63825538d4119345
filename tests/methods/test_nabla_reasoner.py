"""∇-Reasoner in rounds, under budgets, and its published variants as plain configurations."""

from __future__ import annotations

import pytest

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from tests.running import (
    PROMPTS,
    SAMPLING,
    assert_anytime,
    assert_same_alone_and_together,
    proposals,
    run,
    tiny_engine,
)

DTO = {"steps": 3, "learning_rate": 0.5}
SPEC = {"name": "nabla-reasoner", "dto": DTO, "proposal": {"name": "sample", "temperature": 1.5}}


def method(**changes):
    return methods.build({**SPEC, "sampling": SAMPLING, "max_rollouts": 4, **changes})


def test_alone_and_together():
    assert_same_alone_and_together(method(rounds=2))


def test_rounds_are_restarts_and_the_best_is_kept():
    single, double = (run(tiny_engine(), method(rounds=n)) for n in (1, 2))
    assert any(b.tokens != a.tokens for a, b in zip(single, double, strict=True))
    for one, two in zip(single, double, strict=True):
        assert proposals(two)[: len(one.revisions)] == proposals(one)
        assert one.candidates < two.candidates <= 8
        assert two.reward >= one.reward - 1e-9
        if two.tokens == one.tokens:
            assert two.revised_positions == one.revised_positions
        else:
            assert two.reward > one.reward


def test_revised_positions_are_those_of_the_answer():
    found = 0
    for solution in run(tiny_engine(), method(rounds=3)):
        for position in solution.revised_positions:
            fitting = [r for r in solution.revisions if r.accepted and r.position == position]
            assert solution.tokens[position] in [r.new_token for r in fitting]
            found += 1
    assert found


def test_under_a_budget():
    solutions = assert_anytime(method(), (60.0, 150.0))
    for solution in solutions:
        assert solution.checkpoints[0].usage.calls < 60  # the first rollout


def test_without_a_reward_the_last_round_counts():
    always = method(dto={**DTO, "objective": "likelihood"}, acceptance="always")
    engine = tiny_engine(reward=False, budgets=[Budget("calls", (120.0,))])
    for solution in run(engine, always):
        assert solution.reward is None
        assert solution.tokens == solution.checkpoints[-1].tokens
        assert solution.candidates > 4


def test_algorithm_1_proposes_at_every_position():
    engine = tiny_engine()
    for solution in run(engine, method(selector="all", max_rollouts=None)):
        counts, ended = solution.cost.counts, solution.tokens[-1] in engine.lm.eos_ids
        assert counts.get("skipped_positions", 0) == ended
        assert counts["refined_positions"] == len(solution.tokens) - ended
        assert solution.candidates == 1 + len(solution.revisions)


def test_the_detached_objective_sends_no_backward_pass_through_the_language_model():
    detached = {
        "name": "sum",
        "weights": {"reward": 1.0, "likelihood": 0.1},
        "parts": {"likelihood": {"name": "likelihood", "detach_context": True}},
    }
    attached = {"name": "sum", "weights": {"reward": 1.0, "likelihood": 0.1}}
    engine = tiny_engine()
    passes = []
    for objective in (attached, detached):
        still = method(dto={**DTO, "objective": objective}, acceptance="never")
        passes.append(run(engine, still, PROMPTS[:1])[0].cost.total.backward_passes)
    assert 0 < passes[1] < passes[0]


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("max_rollouts", 0)])
def test_bad_arguments(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
        method(**{name: value})


def test_equal_answers_are_reported_once():
    still = method(sampling=Sampling(temperature=0.0, max_new_tokens=4), acceptance="never", rounds=3)
    for solution in run(tiny_engine(), still):
        assert len(solution.checkpoints) == 1
