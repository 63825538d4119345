"""The anchor that holds the rollout's Gumbel noise fixed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nabla.core.errors import ConfigError
from nabla.estimators.anchors.argmax import ArgmaxAnchor
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.anchors.gumbel_posterior import GumbelPosteriorAnchor
from nabla.estimators.anchors.rollout import RolloutAnchor
from nabla.estimators.gapped import GappedStraightThrough
from nabla.estimators.gumbel import GumbelSoftmax, GumbelStraightThrough
from nabla.estimators.reinmax import ReinMax
from nabla.estimators.straight_through import StraightThrough
from tests.strategies import ALPHA, INF, follows, logits, seeded

few = settings(max_examples=40)
HARD = [StraightThrough(), GumbelStraightThrough(), ReinMax(), GappedStraightThrough()]


def point(reference, chosen, temperature=0.7, seed=0, anchor=None):
    anchor = anchor or GumbelPosteriorAnchor()
    noise = anchor.noise(reference, chosen, temperature=temperature, generator=seeded(seed))
    return AnchorPoint(anchor, reference, chosen, noise)


def any_token(reference, seed):
    return torch.multinomial((reference > -INF).double(), 1, generator=seeded(seed))[:, 0]


@pytest.mark.parametrize("estimator", HARD, ids=lambda e: type(e).__name__)
@given(reference=logits(), seed=st.integers(0, 2**31))
@few
def test_unrefined_rows_stand_at_the_rollouts_tokens(estimator, reference, seed):
    chosen = any_token(reference, seed)
    rows = estimator(reference, generator=seeded(seed + 1), anchor=point(reference, chosen, seed=seed))
    assert torch.equal(rows.argmax(-1), chosen)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_moved_rows_follow_the_moved_law(temperature):
    """Tokens of softmax(z_0/τ), noise from the posterior, then z: a sample of softmax(z/τ)."""
    reference = torch.tensor([1.0, -0.5, 0.3, 1.4], dtype=torch.float64).expand(20_000, -1)
    z = torch.tensor([0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    law = (reference[0] / temperature).softmax(-1)
    chosen = torch.multinomial(law, len(reference), replacement=True, generator=seeded(0))
    where = point(reference, chosen, temperature, seed=11)
    for estimator in (StraightThrough(), GumbelStraightThrough()):
        rows = estimator(z.expand(len(reference), -1), generator=seeded(1), anchor=where)
        assert follows(rows.argmax(-1), (z / temperature).softmax(-1))


def test_the_noise_is_gumbel_in_units_of_the_logits():
    reference = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64).expand(10_000, -1)
    chosen = torch.multinomial((reference[0] / 0.5).softmax(-1), 10_000, True, generator=seeded(0))
    noise = point(reference, chosen, 0.5, seed=11).noise
    for column in noise.T:
        assert stats.kstest(column.numpy() / 0.5, stats.gumbel_r.cdf).pvalue > ALPHA


@pytest.mark.parametrize("estimator", [GumbelSoftmax(0.5), GumbelStraightThrough(0.5)])
def test_gumbel_estimators_use_the_held_noise(estimator):
    reference = torch.randn(3, 5, generator=seeded(0), dtype=torch.float64)
    where = point(reference, torch.tensor([0, 1, 2]))
    found = []
    for seed in (0, 1):
        leaf = (reference + 0.1).requires_grad_()
        rows = estimator(leaf, generator=seeded(seed), anchor=where)
        (gradient,) = torch.autograd.grad((rows * reference).sum(), leaf)
        found.append((rows, gradient))
    assert torch.equal(found[0][0], found[1][0])  # whatever the generator: nothing is drawn
    assert torch.equal(found[0][1], found[1][1])
    soft = ((reference + 0.1 + where.noise) / 0.5).softmax(-1)
    if not estimator.hard:
        torch.testing.assert_close(found[0][0], soft)


def test_greedy_rollouts_have_no_noise_and_an_own_temperature_wins():
    reference, chosen = torch.zeros(2, 3), torch.tensor([0, 1])
    assert not point(reference, chosen, 0.0).noise.any()
    assert not point(reference, chosen, 0.7, anchor=GumbelPosteriorAnchor(0.0)).noise.any()
    fixed = point(reference, chosen, 0.7, anchor=GumbelPosteriorAnchor(2.0)).noise
    assert torch.equal(fixed, point(reference, chosen, 2.0).noise)
    for bad in (-1.0, INF, float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            GumbelPosteriorAnchor(bad)


@pytest.mark.parametrize("anchor", [RolloutAnchor(), ArgmaxAnchor()])
def test_other_anchors_hold_no_noise(anchor):
    source = seeded(0)
    before = source.get_state()
    assert anchor.noise(torch.zeros(1, 2), torch.zeros(1).long(), temperature=1.0, generator=source) is None
    assert torch.equal(source.get_state(), before)
