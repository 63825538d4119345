"""Power sampling against enumeration: its chain leaves π^α, its mutants do not (SPEC section 15)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.searches.power_sampling import PowerSampling
from nabla.theory.problems.text import SequenceSpace
from tests import chains, running

ALPHA, TEMPERATURE, STARTS = 2.0, 0.7, 1500
MUTANTS = {"lengths": {"lengths": False}, "end": {"fixed_end": True}}


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=3, seed=3)


@pytest.fixture(scope="module")
def target(space: SequenceSpace) -> np.ndarray:
    law = np.exp(ALPHA * space.log_pi.double().numpy())
    return law / law.sum()


def method(space: SequenceSpace, **arguments) -> PowerSampling:
    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=space.length)
    return PowerSampling(ALPHA, sampling=sampling, **arguments)


def step(space: SequenceSpace):
    made = method(space)
    return lambda session, text, number: made.step(session, text, space.length, number)


def test_the_chain_leaves_its_target_and_its_mutants_do_not(space, target):
    log_target = ALPHA * space.log_pi.double().numpy()
    matrix = chains.suffix_chain(space, log_target, TEMPERATURE)
    assert chains.gap(target @ matrix, target) < 1e-12
    for changes in MUTANTS.values():
        mutant = chains.suffix_chain(space, log_target, TEMPERATURE, **changes)
        assert chains.gap(target @ mutant, target) > 1e-3


@pytest.mark.timeout(900)
def test_production_steps_follow_the_chain_and_no_mutant(space, target):
    log_target = ALPHA * space.log_pi.double().numpy()
    starts = chains.draws(target, STARTS)
    reached = chains.ends(space, step(space), starts, method(space).sampling)
    assert chains.law_p(target, reached) > 1e-3
    matrix = chains.suffix_chain(space, log_target, TEMPERATURE)
    assert chains.step_p(target, matrix, starts, reached) > 1e-3
    for changes in MUTANTS.values():
        mutant = chains.suffix_chain(space, log_target, TEMPERATURE, **changes)
        assert chains.step_p(target, mutant, starts, reached) < 1e-3


@pytest.mark.timeout(900)
def test_from_the_model_two_hundred_steps_reach_the_target_and_an_idle_chain_does_not(space, target):
    pi = np.exp(space.log_pi.double().numpy())
    count = 80
    starts = chains.draws(pi, count, seed=1)
    reached = chains.ends(space, step(space), starts, method(space).sampling, steps=200)

    def law(drawn):
        return np.bincount(drawn, minlength=len(target)) / count

    exact = [law(chains.draws(target, count, seed=seed)) for seed in range(2, 42)]
    floor = [chains.gap(one, other) for one, other in zip(exact[::2], exact[1::2], strict=True)]
    apart = [chains.gap(law(reached), one) for one in exact]
    idle = [chains.gap(law(starts), one) for one in exact]
    noise = 3 * np.std(floor)
    assert abs(np.mean(apart) - np.mean(floor)) < noise
    assert np.mean(idle) - np.mean(floor) > noise


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
