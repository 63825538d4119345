"""Each statistic against a case counted by hand or enumerated."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from nabla.core.errors import ConfigError
from nabla.study.evaluation.statistics import (
    Comparison,
    Proportion,
    best_of_k,
    bootstrap_difference,
    bootstrap_share,
    compare,
    compare_numbers,
    detectable,
    holm,
    mcnemar,
    number_p,
    paired_p,
    paired_t,
    pass_at_k,
    solved,
    unbeaten,
    wilson,
)

# -- Wilson ------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_agrees_with_scipy(total, data, level):
    successes = data.draw(st.integers(0, total))
    expected = binomtest(successes, total).proportion_ci(level, method="wilson")
    assert wilson(successes, total, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand():
    # 2 of 4, z = 1.96: centre 1/2, half-width z/(1 + z²/4) * sqrt(1/16 + z²/64).
    z = 1.959963984540054
    half = z / (1 + z * z / 4) * math.sqrt(1 / 16 + z * z / 64)
    assert wilson(2, 4) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


def test_ends_are_exact_and_no_trials_say_nothing():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Proportion(0, 0).value)


def test_seeds_averaged_within_problems_make_fractional_successes():
    low, high = Proportion(4.5, 10).interval()
    assert wilson(4, 10)[0] < low < 0.45 < high < wilson(5, 10)[1]


@pytest.mark.parametrize("arguments", [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_impossible_counts_and_levels(arguments):
    with pytest.raises(ConfigError):
        wilson(*arguments)


# -- paired tests --------------------------------------------------------------------------------------


def test_the_bootstrap_interval_is_that_of_all_resamples():
    first, second = np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    gains = first - second
    means = sorted(float(np.mean(draw)) for draw in itertools.product(gains, repeat=4))
    # 256 equally likely resamples; the mean is 0 with probability (3/4)^4 = 0.316.
    assert means.count(0.0) == 81
    low, high = bootstrap_difference(first, second, resamples=20000)
    exact = np.quantile(means, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(exact), abs=0.01)


def test_equal_samples_have_no_width_and_unpaired_ones_are_refused():
    same = np.ones(5)
    assert bootstrap_difference(same, same) == (0.0, 0.0)
    with pytest.raises(ConfigError, match="same problems"):
        bootstrap_difference(np.ones(3), np.ones(4))
    with pytest.raises(ConfigError, match="same problems"):
        mcnemar(np.ones(0, dtype=bool), np.ones(0, dtype=bool))


@given(st.integers(0, 8), st.integers(0, 8))
def test_mcnemar_is_the_two_sided_binomial_of_the_discordant_pairs(b, c):
    first = np.array([True] * b + [False] * c + [True, False])
    second = np.array([False] * b + [True] * c + [True, False])
    n, k = b + c, min(b, c)
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(k + 1))
    found = mcnemar(first, second)
    assert found[:2] == (b, c)
    assert found[2] == pytest.approx(float(min(Fraction(1), 2 * tail)))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1 = 0.03, 0.04, 0.04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_detectable_difference_is_nearly_the_normal_formula():
    gains = np.array([1.0, -1.0] * 250)
    spread = gains.std(ddof=1)
    normal = (1.959964 + 0.841621) * spread / math.sqrt(500)
    found = detectable(gains)
    assert found == pytest.approx(normal, rel=0.005)
    assert found > normal  # t, not normal
    assert detectable(np.zeros(5)) is None


def test_a_detectable_difference_is_detected_four_times_in_five():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4000, 60))
    size = detectable(np.array([1.0, -1.0] * 30)) / np.std([1.0, -1.0] * 30, ddof=1)
    p = ttest_1samp(samples + size, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


def test_one_run_each_is_mcnemars_and_several_are_judged_by_their_mean():
    first, second = np.zeros((1, 9), dtype=bool), np.zeros((1, 9), dtype=bool)
    first[0, :6] = True
    assert paired_p(first, second) == pytest.approx(2 / 64)
    # The first loses the majority of 60 problems by one run each, and wins one run of 60 that both have.
    first = np.repeat([[1, 1], [0, 1], [0, 1]], 60, axis=1).astype(bool)
    second = np.repeat([[1, 1], [1, 1], [0, 0]], 60, axis=1).astype(bool)
    assert mcnemar(solved(first), solved(second)) == (0, 60, pytest.approx(2 / 2**60))
    assert paired_p(first, second) == pytest.approx(1.0)


def test_constant_gains():
    assert paired_t(np.zeros(5)) == 1.0
    assert paired_t(np.ones(5)) == pytest.approx(2 * 0.5**5)  # five of five signs
    assert paired_t(np.full(2, 0.5)) == 0.5  # two problems are not significant, however equal
    assert paired_t(np.array([1 - 2 / 3, 1 / 3])) == 0.5  # equal but for rounding
    assert detectable(np.array([1 - 2 / 3, 1 / 3])) is None
    assert paired_t(np.ones(1)) == 1.0  # one problem shows nothing


def test_gains_of_rounding_alone_show_nothing():
    assert paired_t(np.full(20, (1 - 2 / 3) - 1 / 3)) == 1.0  # 5.6e-17, twenty times the same sign
    assert paired_t(np.array([1e-17, -1e-17] * 10)) == 1.0
    numbers = np.random.default_rng(0).normal(size=(3, 30))
    again = numbers[[2, 0, 1]]  # the same runs in another order, which rounds to other means
    assert (numbers.mean(0) != again.mean(0)).any()
    assert number_p(numbers, again) == 1.0
    found = compare_numbers(numbers, again)
    assert (found.p, found.first_only, found.second_only) == (1.0, 0, 0)


def test_a_comparison_averages_seeds_within_problems():
    first = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1]], dtype=bool)
    second = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)
    found = compare(first, second)
    assert found.difference == pytest.approx(8 / 12 - 4 / 12)
    assert (found.first_only, found.second_only) == (2, 0)
    assert found.p_mcnemar == pytest.approx(0.5)
    gains = np.array([2 / 3, -1 / 3, 0, 1])
    assert found.p == pytest.approx(2 * student.sf(gains.mean() / (gains.std(ddof=1) / 2), 3))
    assert found.low <= found.difference <= found.high
    assert solved(first).tolist() == [True, True, False, True]


# -- which method is best ------------------------------------------------------------------------------


def flags(right: int, total: int = 60) -> np.ndarray:
    return np.arange(total)[None] < right


def test_best_is_who_beats_all_others_by_a_corrected_test():
    assert unbeaten([flags(20), flags(50), flags(22)]) == 1
    assert unbeaten([flags(48), flags(50), flags(22)]) is None  # 48 and 50 are not told apart
    assert unbeaten([flags(50)]) is None


def test_a_difference_that_one_test_would_find_is_lost_among_many():
    # 6 discordant pairs: p = 2/64 = 0.031, which Holm over three pairs does not let pass.
    assert mcnemar(flags(26)[0], flags(20)[0])[2] == pytest.approx(2 / 64)
    assert unbeaten([flags(26), flags(20)]) == 0
    assert unbeaten([flags(26), flags(20), flags(20)]) is None


# -- pass@k ----------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_sample(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@pytest.mark.parametrize("arguments", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_impossible_samples(arguments):
    with pytest.raises(ConfigError):
        pass_at_k(*arguments)


def test_a_share_of_items_is_resampled_by_problems():
    """Items that repeat their problem's first one tell no more than that one does."""
    rng = np.random.default_rng(3)
    once = rng.random(200) < 0.3
    ids = np.arange(200)
    narrow = bootstrap_share(once, ids)
    assert narrow[0] < once.mean() < narrow[1]
    assert bootstrap_share(np.repeat(once, 9), np.repeat(ids, 9)) == pytest.approx(narrow)
    assert narrow == pytest.approx(proportion_confint(once.sum(), 200), abs=0.02)


def test_shares_without_spread_are_not_certain():
    assert bootstrap_share(np.ones(9, bool), np.arange(9) // 3) == wilson(3, 3)
    assert bootstrap_share(np.zeros(4, bool), np.arange(4)) == wilson(0, 4)
    assert bootstrap_share(np.array([True, False]), np.zeros(2, int)) == wilson(0.5, 1)  # one problem


def test_shares_of_unequal_problems_are_of_items():
    chosen, ids = np.array([True, True, True, False, False]), np.array([7, 7, 7, 9, 3])
    low, high = bootstrap_share(chosen, ids)
    assert (low, high) == (0.0, 1.0)
    even = np.array([True, False] * 3)
    assert bootstrap_share(even, np.array([1, 1, 2, 2, 3, 3])) == (0.5, 0.5)


# -- best of k ---------------------------------------------------------------------------------------

REWARDS = st.sampled_from([-1.0, 0.0, 2.0, float("nan")])


@given(st.lists(st.tuples(REWARDS, st.integers(0, 3)), min_size=1, max_size=6), st.data())
def test_best_of_k_is_the_mean_over_all_subsets(samples, data):
    """Of those that share the highest reward of a subset, the mean; a sample without a reward comes last."""
    k = data.draw(st.integers(1, len(samples)))
    rewards, values = (np.array(column, dtype=float) for column in zip(*samples, strict=True))
    ranked = np.where(np.isnan(rewards), -np.inf, rewards)
    means = []
    for chosen in itertools.combinations(range(len(samples)), k):
        top = max(ranked[i] for i in chosen)
        means.append(np.mean([values[i] for i in chosen if ranked[i] == top]))
    assert best_of_k(rewards, values, k) == pytest.approx(np.mean(means))


@pytest.mark.parametrize("k", [0, 3])
def test_best_of_k_refuses_what_cannot_be_drawn(k):
    with pytest.raises(ConfigError, match="best-of-k needs"):
        best_of_k(np.zeros(2), np.zeros(2), k)


def test_a_notebook_shows_a_comparison():
    found = Comparison(0.1, 0.02, 0.18, 0.01, 5, 1, None, 0.07)
    shown = found._repr_html_()
    assert "0.1 [0.02, 0.18]" in shown
    assert "McNemar" not in shown
    assert "0.07" in shown
    assert "problems higher with the first alone" in shown
    assert "problems solved by the second alone" in replace(found, p_mcnemar=0.2)._repr_html_()
