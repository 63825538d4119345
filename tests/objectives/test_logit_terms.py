"""Logit terms: KL in both directions and entropy; every one's laws are checked in tests/testing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.objectives.base import LogitObjective, log_probabilities, objectives
from nabla.objectives.entropy import Entropy
from nabla.objectives.kl import KL, ReverseKL, kl_rows
from tests.strategies import INF, logits, make_logits, seeded

TERMS = [o for o in map(objectives.build, objectives) if isinstance(o, LogitObjective)]
few = settings(max_examples=60)


def other(z, seed, size=1.0):
    """Logits near ``z`` with the same masked candidates."""
    return z + size * torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)


def gradient(term, z, reference):
    leaf = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(term.value(leaf, reference), leaf)
    return found


def test_the_shipped_terms_are_there():
    assert {"kl", "reverse-kl", "entropy"} <= {objectives.name_of(t) for t in TERMS}
    assert all(t.unit == "nats" for t in TERMS if type(t) in (KL, ReverseKL, Entropy))
    assert not any(t.needs_reward or t.needs_likelihood for t in TERMS)


# -- divergences -----------------------------------------------------------------------------------


@given(logits(), st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 100.0]))
@few
def test_a_divergence_is_not_negative_and_zero_at_the_reference(z, seed, size):
    reference = other(z, seed, size)
    assert bool((kl_rows(z, reference) >= -1e-12).all())
    assert bool((kl_rows(z, z.clone()) == 0).all())
    for term in (KL(), ReverseKL()):
        assert float(gradient(term, z, z.clone()).abs().max()) < 1e-9


@given(logits(masked=False, kinds=("normal", "ties", "uniform", "one-hot")), st.integers(0, 2**31))
@few
def test_both_directions_against_torch(z, seed):
    reference = other(z, seed)
    p, q = z.log_softmax(-1), reference.log_softmax(-1)
    forward = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
    backward = torch.nn.functional.kl_div(p, q, reduction="sum", log_target=True)
    torch.testing.assert_close(KL().value(z, reference), forward)
    torch.testing.assert_close(ReverseKL().value(z, reference), backward)


def test_the_two_directions_differ():
    z, reference = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.5, -2.0]])
    assert float(KL().value(z, reference)) != pytest.approx(float(ReverseKL().value(z, reference)), rel=0.05)


def test_the_gradient_of_the_reverse_divergence_in_closed_form():
    """``∂ KL(p_ref || p_z) / ∂z = p_z - p_ref``."""
    z = make_logits("normal", 3, 6, 0, torch.float64, True)
    reference = other(z, 1)
    torch.testing.assert_close(gradient(ReverseKL(), z, reference), z.softmax(-1) - reference.softmax(-1))


def test_only_the_current_logits_get_a_gradient():
    z = make_logits("normal", 2, 5, 0, torch.float64, False)
    reference = other(z, 1)
    assert not reference.requires_grad
    assert KL().value(z.clone().requires_grad_(), reference).requires_grad


# -- entropy ---------------------------------------------------------------------------------------


@given(logits())
@few
def test_the_entropy_term_is_minus_the_entropy(z):
    value = Entropy().value(z, z)
    expected = -torch.distributions.Categorical(probs=z.softmax(-1)).entropy().sum()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    most = -(z > -INF).sum(-1).double().log().sum()
    assert float(most) - 1e-9 <= float(value) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trap_entropy_with_0_log_0(dtype):
    """Probabilities that are zero, by a mask or by underflow, count nothing, in value and gradient."""
    z = torch.tensor([[0.0, -INF, -1e4], [2.0, 2.0, -INF]], dtype=dtype)
    assert float(Entropy().value(z, z)) == pytest.approx(-0.6931472)
    assert bool(torch.isfinite(gradient(Entropy(), z, z)).all())
    log_p, p = log_probabilities(z)
    assert torch.equal(log_p[p == 0], torch.zeros(3, dtype=dtype))
    assert bool(torch.isfinite(gradient(KL(), z, z + 1)).all())
    assert bool(torch.isfinite(gradient(ReverseKL(), z, z.flip(0).masked_fill(z == -INF, -INF))).all())
