"""Sparsemax and 1.5-entmax against their definitions."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from nabla.estimators.sparse import (
    Entmax15,
    Entmax15StraightThrough,
    Sparsemax,
    SparsemaxStraightThrough,
)
from tests.strategies import INF, logits, make_logits, seeded

few = settings(max_examples=40)


def projection(z):
    """The closest point of the simplex: the best of all supports (brute force)."""
    best, distance = None, INF
    finite = [i for i, x in enumerate(z) if x > -INF]
    for size in range(1, len(finite) + 1):
        for support in itertools.combinations(finite, size):
            shift = (sum(z[i] for i in support) - 1) / size
            p = [z[i] - shift if i in support else 0.0 for i in range(len(z))]
            gap = sum((p[i] - z[i]) ** 2 for i in finite)
            if min(p) >= -1e-12 and gap < distance:
                best, distance = p, gap
    return best


def entmax(z):
    """``relu(z/2 - t)^2`` that sums to one, t by root finding."""
    finite = [x for x in z if x > -INF]
    t = brentq(
        lambda t: sum(max(x / 2 - t, 0.0) ** 2 for x in finite) - 1,
        max(finite) / 2 - 1,
        max(finite) / 2,
        xtol=1e-15,
    )
    return [max(x / 2 - t, 0.0) ** 2 for x in z]


@pytest.mark.parametrize(("estimator", "definition"), [(Sparsemax, projection), (Entmax15, entmax)])
@given(z=logits(kinds=("normal", "ties", "uniform", "one-hot")), tau=st.sampled_from([0.5, 1.0, 3.0]))
@few
def test_the_rows_are_the_defined_ones(estimator, definition, z, tau):
    rows = estimator(tau)(z, generator=seeded())
    expected = torch.tensor([definition((row / tau).tolist()) for row in z], dtype=z.dtype)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", [Sparsemax(0.7), Entmax15(0.7)])
def test_the_backward_is_the_derivative(estimator):
    z = make_logits("normal", 4, 5, 3, torch.float64, False).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimator(x, generator=seeded()), (z,))


@pytest.mark.parametrize(
    ("hard", "soft"), [(SparsemaxStraightThrough, Sparsemax), (Entmax15StraightThrough, Entmax15)]
)
@given(z=logits(), seed=st.integers(0, 2**31))
@few
def test_the_straight_through_forms_share_the_backward_rule(hard, soft, z, seed):
    cotangent = torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)
    found = []
    for estimator in (hard(0.6), soft(0.6)):
        leaf = z.clone().requires_grad_()
        rows = estimator(leaf, generator=seeded())
        found += torch.autograd.grad(rows, leaf, cotangent)
        assert torch.equal(rows.argmax(-1), z.argmax(-1)) or not estimator.hard
    assert torch.equal(*found)
    torch.testing.assert_close(found[0].sum(-1), torch.zeros(len(z), dtype=z.dtype), atol=1e-9, rtol=0)


@pytest.mark.parametrize("estimator", [Sparsemax(), Entmax15()])
def test_a_candidate_far_below_has_no_weight_and_no_gradient(estimator):
    z = torch.tensor([[0.0, -0.1, -5.0, -INF]], dtype=torch.float64, requires_grad=True)
    rows = estimator(z, generator=seeded())
    (gradient,) = torch.autograd.grad(rows, z, torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=z.dtype))
    assert rows[0, 2:].tolist() == [0.0, 0.0]
    assert gradient[0, 2:].tolist() == [0.0, 0.0]
    assert gradient[0, :2].abs().min() > 0
