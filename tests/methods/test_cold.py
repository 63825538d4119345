"""COLD: the inner loop's dynamics on all rows, read back as a text."""

from __future__ import annotations

import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from tests import dense
from tests.cases import FINISHED, UNFINISHED, case
from tests.running import SAMPLING, assert_anytime, assert_same_alone_and_together, run, tiny_engine


def method(**changes):
    spec = {"steps": 3, "learning_rate": 1.0, "langevin": 0.3, "top_k": 6}
    return methods.build({"name": "cold", "sampling": SAMPLING, **spec, **changes})


@pytest.mark.parametrize("text", [FINISHED, UNFINISHED])
def test_the_dynamics_are_algorithm_2_with_noise(text):
    c = case()
    weights = {"reward": 1.0, "likelihood": 0.3}
    cold = method(objective=c.objective(**weights))
    trajectory = c.trajectory(text)

    async def refine(session):
        return await cold.dto.refine(trajectory, session)

    found = c.run(refine)
    expected = dense.refine(
        c.dense,
        trajectory.tokens,
        committed=0,
        rows="all",
        estimator="soft-embedding",
        anchor="rollout",
        parameterization="logits",
        steps=3,
        learning_rate=lambda step, total: 1.0,
        generator=generator(c.engine.seed, c.prompt.id, "method", "refine", 0, 0),
        support=6,
        optimizer=torch.optim.SGD,
        langevin=0.3,
    )
    c.close(found.logits, expected.logits)
    assert found.recomputed == 3


def test_without_motion_the_rollout_is_read_back():
    still = method(learning_rate=1e-12, langevin=0.0)
    plain = methods.build("best-of-n", n=1, sampling=SAMPLING)
    for a, b in zip(run(tiny_engine(), still), run(tiny_engine(), plain), strict=True):
        assert a.tokens == b.tokens
        assert a.candidates == 1


def test_texts_come_from_the_support_and_keep_their_end():
    c = case()
    cold = method(proposal={"name": "sample", "temperature": 3.0}, langevin=3.0, top_k=3)
    start = c.trajectory(FINISHED)

    async def texts(session):
        refinement = await cold.dto.refine(start, session)
        many = [cold.text(session, start, refinement, session.generator("propose", i)) for i in range(40)]
        return refinement.reference.candidates, many

    candidates, many = c.run(texts)
    assert len({tuple(t.tolist()) for t in many}) > 30
    ended_early = 0
    for text in many:
        ids = text.tolist()
        assert ids[-1] in c.lm.eos_ids
        assert not set(ids[:-1]) & set(c.lm.eos_ids)
        for position, token in enumerate(ids):
            assert token in candidates[position].tolist()
        ended_early += len(ids) < len(start)
    assert len(start) == max(len(t) for t in many) or ended_early == len(many)


def test_the_argmax_of_unmoved_rows_is_the_language_models():
    greedy = Sampling(temperature=0.0, max_new_tokens=12)
    still = method(learning_rate=1e-12, langevin=0.0, proposal="argmax", sampling=greedy)
    plain = methods.build("greedy", max_new_tokens=12)
    found, expected = run(tiny_engine(), still), run(tiny_engine(), plain)
    assert [s.tokens for s in found] == [s.tokens for s in expected]


def test_alone_and_together():
    assert_same_alone_and_together(method(rounds=2))


def test_under_a_budget():
    solutions = assert_anytime(method(), (60.0, 150.0))
    assert all(s.candidates > 2 for s in solutions)


def test_likelihood_alone_needs_no_reward():
    for solution in run(tiny_engine(reward=False), method(objective="likelihood")):
        assert solution.reward is None
        assert solution.cost.total.backward_passes > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"top_k": 1}, "top_k must be at least 2"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"langevin": -1.0}, "langevin"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        method(**changes)


def test_a_missing_reward():
    with pytest.raises(ConfigError, match="differentiable reward"):
        method().check(tiny_engine(reward=False))
