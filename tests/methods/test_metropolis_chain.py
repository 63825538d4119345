"""The chain over (position, token) against enumeration: it leaves π e^{r/β} (SPEC section 15)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.methods.searches.metropolis_chain import MetropolisChain
from nabla.theory.problems.text import SequenceSpace
from tests import chains, running

STARTS, TAU = 1500, 0.6


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=3, weight=1.0, seed=3)


def weights(space: SequenceSpace, move: str) -> list[np.ndarray]:
    """``w(l, v)`` of each text: π^(1/τ) over all pairs, or in each row alike; own tokens are no moves."""
    found = []
    for y in space.responses:
        w = (space.log_rows(space.one_hot(y)) / TAU).exp().numpy()
        w[np.arange(len(y)), y.numpy()] = 0.0
        found.append(w / (w.sum(1, keepdims=True) if move == "uniform-position" else w.sum()))
    return [w / w.sum() for w in found]


def chain(space: SequenceSpace, move: str, *, densities: bool = True) -> np.ndarray:
    """Written out: a pair, a suffix from π, acceptance with the densities of both ways."""
    texts, q = [tuple(y.tolist()) for y in space.responses], weights(space, move)
    rows, reward = chains.log_rows(space, 1.0), space.reward.double().numpy()
    matrix = np.zeros((len(texts), len(texts)))
    for a, old in enumerate(texts):
        for b, new in enumerate(texts):
            if a == b:
                continue
            at = next(i for i in range(len(old)) if old[i] != new[i : i + 1][0])
            ratio = math.exp(rows[b][at] - rows[a][at]) * q[b][at, old[at]] / q[a][at, new[at]]
            gain = math.exp(space.weight * (reward[b] - reward[a])) * (ratio if densities else 1.0)
            matrix[a, b] = q[a][at, new[at]] * math.exp(sum(rows[b][at + 1 :])) * min(1.0, gain)
    matrix[np.arange(len(texts)), np.arange(len(texts))] += 1 - matrix.sum(1)
    return matrix


@pytest.mark.timeout(900)
@pytest.mark.parametrize("move", ["policy", "uniform-position"])
def test_production_pairs_follow_the_exact_chain(space, move):
    method = MetropolisChain(
        {"name": move, "temperature": TAU, "floor": 0.0},
        beta=1 / space.weight,
        sampling=Sampling(temperature=1.0, max_new_tokens=space.length),
    )

    async def step(session, text, number):
        return await method.step(session, text, number, [])

    starts = chains.draws(space.target.double().numpy(), STARTS)
    reached = chains.ends(space, step, starts, method.sampling)
    target = space.target.double().numpy()
    exact, plain = chain(space, move), chain(space, move, densities=False)
    assert chains.gap(target @ exact, target) < 1e-12
    assert chains.gap(target @ plain, target) > 1e-3
    assert chains.law_p(target, reached) > 1e-3
    assert chains.step_p(target, exact, starts, reached) > 1e-3
    assert chains.step_p(target, plain, starts, reached) < 1e-3


def test_answers_and_costs_do_not_depend_on_what_else_runs():
    running.assert_same_alone_and_together(MetropolisChain(steps=4, sampling=running.SAMPLING))
    running.assert_anytime(MetropolisChain(steps=2, sampling=running.SAMPLING), (60.0, 150.0))


def test_a_gradient_is_a_move_with_densities():
    balanced = {"name": "first-order", "temperature": 2.0}
    method = MetropolisChain(balanced, objective="sum", steps=3, sampling=running.SAMPLING)
    for solution in running.run(running.tiny_engine(), method):
        assert solution.cost.total.backward_passes >= 3
        assert len(solution.revisions) == 3


def test_a_move_without_densities_is_refused():
    both = {"name": "sum", "parts": ["policy", "random-direction"]}
    for arguments in ({"move": "random-direction"}, {"move": both}, {"sampling": {"temperature": 0.0}}):
        with pytest.raises(ConfigError, match="needs the densities"):
            MetropolisChain(**arguments)
    with pytest.raises(ConfigError, match="no objective"):
        MetropolisChain("first-order")
    with pytest.raises(ConfigError, match="temperature"):
        MetropolisChain(beta=0.0)
