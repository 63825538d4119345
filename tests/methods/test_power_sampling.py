"""Power sampling against enumeration: its chain leaves π^α, its mutants do not (SPEC section 15)."""

from __future__ import annotations

import math

import pytest

from nabla.core.errors import ConfigError
from nabla.methods.base import methods
from nabla.methods.searches.power_sampling import PowerSampling
from tests import chains, running


@pytest.fixture(scope="module")
def chain() -> chains.Chain:
    return chains.power_sampling()


def test_the_chain_leaves_its_target_and_its_mutants_do_not(chain):
    chains.assert_leaves_its_target(chain)


@pytest.mark.timeout(900)
def test_production_steps_follow_the_chain_and_no_mutant(chain):
    chains.assert_steps_follow(chain)


@pytest.mark.timeout(900)
def test_from_the_model_two_hundred_steps_reach_the_target_and_an_idle_chain_does_not(chain):
    chains.assert_reaches_its_target(chain)


def test_blocks_are_written_one_behind_the_other_and_the_answer_is_complete():
    made = PowerSampling(2.0, steps=3, blocks=4, sampling=running.SAMPLING)
    for solution in running.run(running.tiny_engine(reward=False), made):
        assert solution.finished or len(solution.tokens) == running.SAMPLING.max_new_tokens
        assert solution.reward is None
        blocks = math.ceil(len(solution.tokens) / 2)
        assert solution.candidates > 3 * (blocks - 1)
        assert solution.checkpoints[-1].tokens == solution.tokens


def test_answers_and_costs_do_not_depend_on_what_else_runs():
    running.assert_same_alone_and_together(PowerSampling(steps=3, blocks=3, sampling=running.SAMPLING))


def test_it_goes_on_to_a_budget():
    from nabla.core.budget import Budget

    made = PowerSampling(2.0, steps=1, blocks=2, sampling=running.SAMPLING)
    engine = running.tiny_engine(reward=False, budgets=[Budget("calls", (60.0, 150.0))])
    for solution in running.run(engine, made):
        assert solution.cost.total.calls >= 150
        assert solution.checkpoints[0].usage.calls <= 60
        assert solution.checkpoints[-1].tokens == solution.tokens


def test_settings_are_checked():
    for arguments in ({"alpha": 0.5}, {"steps": 0}, {"blocks": 0}, {"sampling": {"temperature": 0.0}}):
        with pytest.raises(ConfigError):
            methods.build({"name": "power-sampling", **arguments})
