"""Trajectory terms on hand-made views."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.objectives.base import TrajectoryView
from nabla.objectives.likelihood import Likelihood
from nabla.objectives.reward import RewardObjective

numbers = st.lists(st.floats(-50, 0), min_size=1, max_size=6)


def make_view(rows, reward=None):
    """The two log-likelihoods are equal numbers, apart for their gradients."""
    context = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    fixed = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    value = None if reward is None else torch.tensor(reward, dtype=torch.float64, requires_grad=True)
    return TrajectoryView(context, fixed, value)


def derivatives(objective, view):
    inputs = [
        x for x in (view.log_likelihood, view.log_likelihood_fixed_context, view.reward) if x is not None
    ]
    return torch.autograd.grad(objective.value(view), inputs, allow_unused=True)


@given(numbers)
def test_likelihood(rows):
    view = make_view(rows)
    assert Likelihood().value(view).item() == pytest.approx(-sum(rows))
    context, fixed = derivatives(Likelihood(), view)
    assert torch.equal(context, -torch.ones(len(rows), dtype=torch.float64))
    assert fixed is None


@given(numbers)
def test_a_detached_context_has_the_same_value_and_no_postfix_gradient(rows):
    """Prop. C.1: only δ_postfix goes away."""
    view = make_view(rows)
    detached = Likelihood(detach_context=True)
    assert detached.value(view).item() == Likelihood().value(view).item()
    context, fixed = derivatives(detached, view)
    assert context is None
    assert torch.equal(fixed, -torch.ones(len(rows), dtype=torch.float64))


@given(st.floats(-100, 100))
def test_reward(reward):
    view = make_view([-1.0], reward)
    assert RewardObjective().value(view).item() == -reward
    context, fixed, own = derivatives(RewardObjective(), view)
    assert context is None
    assert fixed is None
    assert float(own) == -1.0


def test_what_a_term_needs():
    assert (Likelihood.needs_likelihood, Likelihood.needs_reward) == (True, False)
    assert (RewardObjective.needs_likelihood, RewardObjective.needs_reward) == (False, True)
    assert (Likelihood.unit, RewardObjective.unit) == ("nats", "reward logits")


def test_trap_likelihood_only_runs_that_crash_for_want_of_a_reward_model():
    view = make_view([-1.0, -2.0], reward=None)
    assert Likelihood().value(view).item() == 3.0
    assert not any(t.objective.needs_reward for t in Likelihood().terms())
    with pytest.raises(ConfigError, match=r"needs a reward model.*rm="):
        RewardObjective().value(view)
