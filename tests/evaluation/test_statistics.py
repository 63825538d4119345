from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nabla.errors import ConfigError
from nabla.evaluation.statistics import Proportion, wilson


@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_agrees_with_scipy(total, data, level):
    successes = data.draw(st.integers(0, total))
    expected = binomtest(successes, total).proportion_ci(level, method="wilson")
    assert wilson(successes, total, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_ends_are_exact_and_no_trials_say_nothing():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Proportion(0, 0).value)


@pytest.mark.parametrize("arguments", [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_impossible_counts_and_levels(arguments):
    with pytest.raises(ConfigError):
        wilson(*arguments)
