"""Do the intervals hold what they say, and are the figures those of their definitions?"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from nabla.estimators.base import estimators
from nabla.study.laboratory.measure import estimates, mean_interval, measure, summarise
from nabla.study.laboratory.problems import linear, normal_logits, quadratic
from tests.strategies import seeded


def problem(make=quadratic, length=2, width=4):
    source = seeded(0)
    return make(normal_logits(length, width, source), source)


def test_a_known_gaussian():
    """Estimates with known bias, variance and cosine."""
    exact = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    noise = torch.randn(50_000, 3, generator=seeded(0), dtype=torch.float64)
    found = summarise(exact + torch.tensor([0.0, 1.0, 0.0]) + 0.5 * noise, exact)
    assert found.exact == 5.0
    assert found.bias.low < 1 / 5 < found.bias.high
    assert found.bias.value == pytest.approx(1 / 5, rel=0.02)
    assert found.variance.value == pytest.approx(3 * 0.25 / 25, rel=0.02)
    assert found.mean_cosine.value == pytest.approx(5 / math.sqrt(26), rel=1e-3)
    assert found.mean_cosine.low < 5 / math.sqrt(26) < found.mean_cosine.high
    assert found.worst_z > 100
    assert found.p_value < 1e-12
    assert not found.unbiased


def test_the_ball_holds_zero_as_often_as_it_says():
    exact, source = torch.ones(4, dtype=torch.float64), seeded(0)
    scale = torch.tensor([1.0, 0.1, 2.0, 1.0])
    held = correct = 0
    for _ in range(400):
        sample = exact + scale * torch.randn(200, 4, generator=source, dtype=torch.float64)
        found = summarise(sample, exact)
        held += found.unbiased
        correct += found.p_value > 0.05
    assert stats.binomtest(held, 400, 0.95, "less").pvalue > 1e-3  # the floor may widen it
    assert stats.binomtest(correct, 400, 0.95, "less").pvalue > 1e-3


def test_intervals_of_means_cover():
    source = seeded(1)
    inside = 0
    for _ in range(400):
        interval = mean_interval(torch.randn(50, generator=source, dtype=torch.float64))
        inside += interval.low < 0 < interval.high
    assert stats.binomtest(inside, 400, 0.95).pvalue > 1e-3


def test_one_estimate_is_exact():
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = summarise(torch.tensor([[1.0, 0.0]], dtype=torch.float64), exact)
    assert found.bias.value == found.bias.low == found.bias.high == pytest.approx(2 / math.sqrt(5))
    assert found.variance.high == 0
    assert summarise(exact[None], exact).unbiased


def test_candidates_that_no_draw_took_are_not_held_against_an_estimator():
    """A rare coordinate is never seen: its sample variance is 0, its standard error is not."""
    exact = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    sample = torch.ones(500, 2, dtype=torch.float64)
    sample[:, 0] += 0.1 * torch.randn(500, generator=seeded(0), dtype=torch.float64)
    sample[:, 1] = 0.0
    assert summarise(sample, exact).worst_z < 4


@pytest.mark.parametrize("name", ["straight-through", "soft-embedding", "gumbel-softmax", "score-function"])
def test_a_batch_of_estimates_is_one_estimate_many_times(name):
    """Each estimate is what DTO would form from its own rows."""
    task, estimator = problem(), estimators.build(name)
    together = estimates(estimator, task, 3, seeded(4))
    leaf = task.logits.expand(3, -1, -1).clone().requires_grad_()
    rows = estimator(leaf, generator=seeded(4))
    for i in range(3):
        own = task.logits.clone().requires_grad_()
        if estimator.feedback == "value":
            loss = estimator.loss(own, rows[:, i], task.at(rows[:, i]))
            (alone,) = torch.autograd.grad(loss, own)
        else:
            slope = torch.zeros_like(rows)
            slope[i] = task.derivative(rows[i : i + 1].detach(), hard=estimator.hard)[0]
            (alone,) = torch.autograd.grad((rows * slope).sum(), leaf, retain_graph=True)
            alone = alone[i]
        torch.testing.assert_close(together[i], alone)


def test_measuring_is_reproducible_and_draws_deterministic_estimators_once():
    task = problem(linear)
    for name, draws in (("reinmax", 200), ("straight-through", 1)):
        first, second = (measure(estimators.build(name), task, 200, seeded(0)) for _ in range(2))
        assert first == second
        assert first.draws == draws
