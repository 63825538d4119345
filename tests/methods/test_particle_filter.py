"""Particle filtering: the evidence against enumeration, resampling, costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.methods.searches.particle_filter import Filter, ParticleFilter, systematic
from nabla.methods.steps import Scores, Steps
from nabla.theory.problems.text import SequenceSpace
from tests import running

RUNS = 600
STEPS = {"sampling": running.SAMPLING, "boundary": {"name": "length", "tokens": 2}}


def evidence(space: SequenceSpace, weight: str) -> np.ndarray:
    """Of independent filters of three particles over steps of one token."""
    sampling = Sampling(temperature=1.0, max_new_tokens=space.length)
    boundary = {"name": "length", "tokens": 1}
    method = ParticleFilter(3, weight, scale=space.weight, sampling=sampling, boundary=boundary)
    found = []

    async def solve(session):
        steps = Steps(method.sampling, method.boundary, method.max_steps)
        filter = Filter(method, method.particles, 0, Scores(session), steps)
        while not filter.done:
            await filter.advance()
        found.append(math.exp(filter.log_evidence))
        return method.solution(session, filter.particles[0])

    prompts = [Prompt(str(i), space.prompt.messages) for i in range(RUNS)]
    for _, outcome in Engine(space.lm, space.rm, seed=7).run(solve, prompts):
        if isinstance(outcome, NablaError):
            raise outcome
    return np.array(found)


@pytest.mark.timeout(900)
def test_increments_estimate_the_evidence_without_bias():
    space = SequenceSpace(length=3, weight=1.0, seed=3)
    truth = float((space.log_pi.double() + space.weight * space.reward.double()).logsumexp(0).exp())
    found = evidence(space, "increment")
    assert abs(found.mean() - truth) < 3 * found.std(ddof=1) / math.sqrt(RUNS)
    other = evidence(space, "prefix")  # the product of all prefixes' weights is another number
    assert abs(other.mean() - truth) > 3 * other.std(ddof=1) / math.sqrt(RUNS)


def test_a_particle_that_has_ended_is_considered_once():
    """Complete responses are those that were written, however many steps the others take."""
    written: dict[str, int] = {}

    class Counting(Callback):
        def on_rollout(self, prompt, trajectory):
            written[prompt.id] = written.get(prompt.id, 0) + whole(trajectory)

    def whole(text):
        return text.finished or len(text) >= text.sampling.max_new_tokens

    engine = running.tiny_engine(events=Events([Counting()]))
    for solution in running.run(engine, ParticleFilter(4, **STEPS)):
        assert solution.candidates == written[solution.prompt.id]


def test_systematic_resampling_is_unbiased():
    weights = torch.tensor([0.1, 2.0, 0.4, 0.5], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(4, dtype=torch.float64)
    for _ in range(4000):
        found = systematic(weights, generator)
        assert len(found) == 4
        counts += torch.bincount(torch.tensor(found), minlength=4)
    assert (counts / 4000).tolist() == pytest.approx((4 * weights / weights.sum()).tolist(), abs=0.03)


@pytest.mark.parametrize("weight", ["prefix", "increment"])
def test_answers_and_costs_do_not_depend_on_what_else_runs(weight):
    running.assert_same_alone_and_together(ParticleFilter(4, weight, **STEPS))


def test_it_goes_on_to_a_budget():
    running.assert_anytime(ParticleFilter(2, **STEPS), (60.0, 150.0))
