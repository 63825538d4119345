"""Where a hard forward value stands (SPEC section 3)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from nabla.core.random import gumbel_like
from nabla.estimators.anchors.argmax import ArgmaxAnchor
from nabla.estimators.anchors.base import AnchorPoint, anchors
from nabla.estimators.anchors.rollout import RolloutAnchor
from nabla.estimators.gumbel import GumbelStraightThrough
from nabla.estimators.stale import Stale
from nabla.estimators.straight_through import StraightThrough, StraightThroughIdentity
from tests.strategies import INF, logits, seeded

HARD = [StraightThrough(), StraightThroughIdentity(), GumbelStraightThrough(), Stale(StraightThrough(), 0.5)]
hard = pytest.mark.parametrize("estimator", HARD, ids=lambda e: type(e).__name__)
few = settings(max_examples=60)


def any_token(reference, seed):
    """A usable token per row, as a rollout may have sampled it: seldom the argmax."""
    return torch.multinomial((reference > -INF).double(), 1, generator=seeded(seed))[:, 0]


@hard
@given(reference=logits(), seed=st.integers(0, 2**31))
@few
def test_unrefined_rows_stand_at_the_rollouts_tokens(estimator, reference, seed):
    """Also under Gumbel noise: what the noise does is no reason to leave the text that was written."""
    chosen = any_token(reference, seed)
    point = AnchorPoint(RolloutAnchor(), reference, chosen)
    rows = estimator(reference.clone(), generator=seeded(seed), anchor=point)
    assert torch.equal(rows.argmax(-1), chosen)


@hard
@given(reference=logits(), seed=st.integers(0, 2**31), size=st.sampled_from([0.01, 1.0, 30.0]))
@few
def test_the_rollouts_token_stays_until_the_argmax_leaves(estimator, reference, seed, size):
    chosen = any_token(reference, seed)
    step = torch.randn(reference.shape, generator=seeded(seed + 1), dtype=reference.dtype)
    z = reference + size * step
    noise = gumbel_like(z, seeded(seed)) if estimator.stochastic else 0.0
    now, then = (z + noise).argmax(-1), (reference + noise).argmax(-1)
    point = AnchorPoint(RolloutAnchor(), reference, chosen)
    rows = estimator(z, generator=seeded(seed), anchor=point)
    expected = one_hot(torch.where(now == then, chosen, now), z.shape[-1]).to(z)
    assert torch.equal(rows, expected)


@hard
@given(reference=logits(), seed=st.integers(0, 2**31))
@few
def test_the_argmax_anchor_is_no_anchor(estimator, reference, seed):
    point = AnchorPoint(ArgmaxAnchor(), reference, any_token(reference, seed))
    anchored = estimator(reference, generator=seeded(seed), anchor=point)
    assert torch.equal(anchored, estimator(reference, generator=seeded(seed)))


@hard
@given(reference=logits(masked=False), seed=st.integers(0, 2**31))
@few
def test_an_anchor_moves_the_forward_value_and_not_the_backward_rule(estimator, reference, seed):
    cotangent = torch.randn(reference.shape, generator=seeded(1), dtype=reference.dtype)
    grads = []
    for anchor in (None, AnchorPoint(RolloutAnchor(), reference, any_token(reference, seed))):
        leaf = reference.clone().requires_grad_()
        rows = estimator(leaf, generator=seeded(seed), anchor=anchor)
        grads += torch.autograd.grad(rows, leaf, cotangent)
    assert torch.equal(*grads)


def test_every_anchor_is_registered():
    assert {"rollout", "argmax"} <= set(anchors)
