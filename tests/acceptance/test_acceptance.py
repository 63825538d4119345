"""Whether a proposal replaces the current response; the laws of every rule are checked in tests/testing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.acceptance.base import Comparison, acceptances, reward_of
from nabla.acceptance.controls import Always, Never
from nabla.acceptance.improvement import Margin, Strict
from nabla.acceptance.metropolis import Metropolis
from nabla.core.errors import ConfigError, NumericalError
from tests.strategies import INF, make_trajectory, seeded

EVERY = [acceptances.build(name) for name in acceptances]
needy = pytest.mark.parametrize("rule", [r for r in EVERY if r.needs_reward], ids=acceptances.name_of)
finite = st.floats(-1e6, 1e6)


def accepts(rule, current, proposal, seed=0):
    return rule.accept(make_trajectory(reward=current), make_trajectory(reward=proposal), seeded(seed))


# -- rewards ---------------------------------------------------------------------------------------


@needy
@pytest.mark.parametrize(("current", "proposal"), [(None, 1.0), (1.0, None), (None, None)])
def test_a_missing_reward(rule, current, proposal):
    with pytest.raises(ConfigError, match=r"there is none.*rm="):
        accepts(rule, current, proposal)


@needy
@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
def test_a_reward_that_is_no_number(rule, bad):
    for pair in [(bad, 1.0), (1.0, bad)]:
        with pytest.raises(NumericalError, match="not finite"):
            accepts(rule, *pair)


def test_a_finite_reward_beyond_float32_is_finite():
    assert reward_of(make_trajectory(reward=1e39)) == 1e39
    assert accepts(Strict(), 1e39, 1e40)


def test_a_comparison_sees_both_rewards_in_their_order():
    class Within(Comparison):
        def compare(self, old, new, generator):
            return old - 1 <= new < old

    assert accepts(Within(), 3.0, 2.5)
    assert not accepts(Within(), 2.5, 3.0)
    with pytest.raises(ConfigError, match="there is none"):
        accepts(Within(), None, 1.0)


@pytest.mark.parametrize("rule", [Always(), Never()], ids=["always", "never"])
def test_trap_likelihood_only_runs_that_crash_for_want_of_a_reward_model(rule):
    assert not rule.needs_reward
    assert accepts(rule, None, None) is isinstance(rule, Always)
    assert accepts(rule, float("nan"), None) is isinstance(rule, Always)


# -- rules -----------------------------------------------------------------------------------------


@given(finite, finite)
def test_strict_is_a_strict_order(a, b):
    assert not accepts(Strict(), a, a)
    assert accepts(Strict(), a, b) is (b > a)
    assert not (accepts(Strict(), a, b) and accepts(Strict(), b, a))


@given(finite, finite, st.floats(0, 100))
def test_margin_wants_more_than_its_margin(a, b, margin):
    rule = Margin(margin)
    assert not accepts(rule, a, a)
    assert accepts(rule, a, b) is (b > a + margin)
    assert not accepts(rule, a, b) or accepts(Strict(), a, b)


def test_a_margin_of_zero_is_strict():
    assert not accepts(Margin(0.5), 1.0, 1.5)
    assert accepts(Margin(0.5), 1.0, 1.6)
    assert accepts(Margin(0.0), 1.0, 1.0 + 1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Margin(-0.1),
        lambda: Margin(float("nan")),
        lambda: Metropolis(0.0),
        lambda: Metropolis(-1.0),
        lambda: Metropolis(INF),
    ],
)
def test_settings_are_checked(make):
    with pytest.raises(ConfigError):
        make()


# -- Metropolis ------------------------------------------------------------------------------------


@given(finite, finite, st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_metropolis_never_turns_down_an_improvement(a, b, seed, temperature):
    low, high = sorted([a, b])
    assert accepts(Metropolis(temperature), low, high, seed)


def test_metropolis_does_not_overflow():
    assert accepts(Metropolis(1e-300), -1e300, 1e300)
    assert not accepts(Metropolis(1e-300), 1e300, -1e300)


def test_metropolis_temperature_limits():
    source = seeded()
    better, worse = make_trajectory(reward=1.0), make_trajectory(reward=0.0)
    cold = [Metropolis(1e-3).accept(better, worse, source) for _ in range(200)]
    hot = [Metropolis(1e9).accept(better, worse, source) for _ in range(200)]
    assert not any(cold)
    assert all(hot)


DRAWS = 1500


@pytest.mark.parametrize("gain", [-0.3, -1.0, -2.5])
def test_metropolis_accepts_with_the_stated_probability(gain):
    source = seeded(11)
    current, proposal = make_trajectory(reward=0.4), make_trajectory(reward=0.4 + gain)
    p = math.exp(gain / 1.5)
    share = sum(Metropolis(1.5).accept(current, proposal, source) for _ in range(DRAWS)) / DRAWS
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / DRAWS)
