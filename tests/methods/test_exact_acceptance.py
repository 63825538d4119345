"""Metropolis-Hastings in production against the enumerated chain (SPEC sections 2 and 15)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nabla.acceptance.base import Acceptance, Densities
from nabla.acceptance.metropolis import Metropolis, MetropolisHastings
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.sources import Own, Refined
from nabla.methods.sweep import Sweep
from nabla.testing.inputs import make_trajectory, seeded
from nabla.theory.problems.text import SequenceSpace
from tests.toy import p_value

RUNS = 800
#: Proposals prefer what π likes already: without their densities the chain is wrong.
TEMPERATURE = 0.4


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=3, weight=1.0, seed=3)


def law_after_a_sweep(
    space: SequenceSpace, exact: bool, start: np.ndarray | None = None
) -> np.ndarray:
    """A law (π by default) times the transition matrices of all positions, written out."""
    texts = [tuple(y.tolist()) for y in space.responses]
    log_pi, reward = space.log_pi.numpy(), space.reward.numpy()
    law = np.exp(log_pi) if start is None else start
    for position in range(space.length):
        matrix = np.zeros((len(texts), len(texts)))
        for a, old in enumerate(texts):
            if position >= len(old) or old[position] == space.eos:
                continue  # the end of a response is not offered
            own = space.log_rows(space.one_hot(space.responses[a]))[position]
            q = torch.log_softmax(own / TEMPERATURE, 0)
            for b, new in enumerate(texts):
                if new[:position] != old[:position] or new[position] == old[position]:
                    continue
                if exact and new[position] == space.eos:
                    continue  # nothing would be offered in its place: there is no way back
                end = position + 1
                head = sum(np.exp(log_pi[c]) for c, t in enumerate(texts) if t[:end] == new[:end])
                offer = math.exp(float(q[new[position]])) * np.exp(log_pi[b]) / head
                ratio = float(own[new[position]] - own[old[position]] + q[old[position]] - q[new[position]])
                gain = space.weight * (reward[b] - reward[a]) + (ratio if exact else 0.0)
                matrix[a, b] = offer * min(1.0, math.exp(gain))
        matrix[np.arange(len(texts)), np.arange(len(texts))] = 1 - matrix.sum(1)
        law = law @ matrix
    return law


def counts(space: SequenceSpace, rule: Acceptance) -> np.ndarray:
    """Last texts of independent sweeps by the engine."""
    method = Sweep(
        Own(),
        selector="all",
        proposal={"name": "sample", "temperature": TEMPERATURE},
        acceptance=rule,
        sampling={"temperature": 1.0, "max_new_tokens": space.length},
        max_rollouts=None,
    )
    engine = Engine(space.lm, space.rm, seed=11)
    prompts = [Prompt(str(i), space.prompt.messages) for i in range(RUNS)]
    found = np.zeros(len(space))
    for _, solution in engine.run(method.solve, prompts):
        assert isinstance(solution, Solution)
        found[space.index[solution.tokens]] += 1
    return found


@pytest.mark.timeout(900)
def test_a_sweep_follows_the_enumerated_chain_and_tells_the_rules_apart(space: SequenceSpace) -> None:
    exact, plain = law_after_a_sweep(space, True), law_after_a_sweep(space, False)
    found = counts(space, MetropolisHastings(1 / space.weight))
    assert p_value(found, exact) > 1e-3
    assert p_value(found, plain) < 1e-6  # without densities it would be another law
    assert p_value(counts(space, Metropolis(1 / space.weight)), plain) > 1e-3


def test_the_exact_chain_leaves_the_target(space: SequenceSpace) -> None:
    """From the target it does not move, which the rule without densities does; from elsewhere it comes
    closer: checked on the written-out chain."""
    target = space.target.numpy()
    start = np.abs(np.exp(space.log_pi.numpy()) - target).sum()
    assert np.abs(law_after_a_sweep(space, True) - target).sum() < start
    np.testing.assert_allclose(law_after_a_sweep(space, True, target), target, rtol=0, atol=1e-12)
    assert np.abs(law_after_a_sweep(space, False, target) - target).sum() > 1e-2


def test_no_end_is_accepted_that_no_step_would_take_back(space: SequenceSpace) -> None:
    """A token that ends the text is offered by the row, and no selector chooses it again."""
    method = Sweep(
        Own(),
        selector="all",
        proposal={"name": "sample", "temperature": 1.0},
        acceptance=MetropolisHastings(),
        sampling={"temperature": 1.0, "max_new_tokens": space.length},
        max_rollouts=None,
    )
    prompts = [Prompt(str(i), space.prompt.messages) for i in range(60)]
    offered = []
    for _, solution in Engine(space.lm, space.rm, seed=3).run(method.solve, prompts):
        assert isinstance(solution, Solution)
        offered += [r for r in solution.revisions if r.new_token == space.eos]
    assert offered
    assert not any(r.accepted for r in offered)


def test_densities_are_asked_for_only_where_they_exist(space: SequenceSpace) -> None:
    engine = Engine(space.lm, space.rm)
    rule = MetropolisHastings()
    for method in (
        Sweep(Refined(), acceptance=rule),
        Sweep(Own(), acceptance=rule, proposal="argmax"),
        Sweep(Own(), acceptance=rule, proposal={"name": "sample", "temperature": 0.0}),
        methods.build("nabla-reasoner", acceptance="metropolis-hastings"),
    ):
        with pytest.raises(ConfigError, match="needs the densities"):
            method.check(engine)
    Sweep(Own(), acceptance=rule).check(engine)
    pair = make_trajectory(reward=0.0), make_trajectory(reward=1.0)
    with pytest.raises(ConfigError, match="by its densities, and there are none"):
        rule.accept(*pair, seeded())
    assert rule.accept(*pair, seeded(), Densities(0.0, 0.0, 0.0))
    assert not rule.accept(*pair, seeded(), Densities(0.0, -math.inf, 0.0))  # no way back


def test_an_answer_that_is_no_bool_is_refused() -> None:
    class Wordy(Acceptance):
        def rule(self, current, proposal, generator, densities=None):
            return "no"

    with pytest.raises(ConfigError, match="must return True or False"):
        Wordy().accept(make_trajectory(reward=0.0), make_trajectory(reward=1.0), seeded())
