"""Verdicts, orders, χ²: the machinery that must be able to say fail and inconclusive."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nabla.core.errors import ConfigError
from nabla.theory.duality.chi_square import chi_square
from nabla.theory.report import Findings, Report, Verdict, fit_order, judge

STEPS = (0.4, 0.2, 0.1, 0.05)


@pytest.mark.parametrize(
    ("value", "floor", "tolerance", "verdict"),
    [
        (0.5, 0.1, 1.0, "pass"),
        (2.0, 0.1, 1.0, "fail"),
        (0.5, 2.0, 1.0, "inconclusive"),  # the noise hides an error of the tolerance's size
        (3.0, 2.0, 1.0, "inconclusive"),
        (50.0, 2.0, 1.0, "fail"),  # no noise of that size explains it
        (math.nan, 0.1, 1.0, "fail"),
        (math.inf, 0.1, 1.0, "fail"),
        (0.5, math.nan, 1.0, "inconclusive"),
    ],
)
def test_judge(value: float, floor: float, tolerance: float, verdict: str) -> None:
    assert judge(value, floor, tolerance) == verdict


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_an_order_is_found(power: float) -> None:
    order = fit_order(STEPS, [3 * h**power for h in STEPS], expected=power)
    assert order.slope == pytest.approx(power)
    assert order.verdict is Verdict.PASS
    assert fit_order(STEPS, [3 * h**power for h in STEPS], expected=power + 0.5).verdict is Verdict.FAIL


def test_noise_is_no_order() -> None:
    errors = [1.0, 0.4, 0.9, 0.3]
    assert fit_order(STEPS, errors, expected=1.0).verdict is Verdict.INCONCLUSIVE
    below = fit_order(STEPS, list(STEPS), expected=1.0, floor=0.08)
    assert below.used == 3
    assert below.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("steps", [(0.1, 0.2, 0.3), (0.1, 0.1, 0.2, 0.3), (0.0, 0.1, 0.2, 0.3)])
def test_an_order_needs_four_resolutions(steps: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        fit_order(steps, [1.0] * len(steps), expected=1.0)


def test_doubt_turns_a_pass_into_inconclusive_and_not_a_failure_into_anything() -> None:
    passing = Report.of("c", "n", 0.1, floor=0.0, tolerance=1.0, doubt="why")
    failing = Report.of("c", "n", 2.0, floor=0.0, tolerance=1.0, doubt="why")
    assert (passing.verdict, failing.verdict) == (Verdict.INCONCLUSIVE, Verdict.FAIL)


def test_seeds_are_merged_with_their_spread_and_the_worst_verdict() -> None:
    rows = [Report.of("c", "n", v, floor=0.1, tolerance=1.0) for v in (0.2, 0.4, 3.0)]
    merged = Report.merge(rows)
    assert merged.verdict is Verdict.FAIL
    assert merged.value == pytest.approx(1.2)
    assert merged.spread == pytest.approx(np.std([0.2, 0.4, 3.0], ddof=1))
    assert Findings("c").reports == []


def test_chi_square_finds_what_it_says_it_finds() -> None:
    random = np.random.default_rng(0)
    law = random.dirichlet(np.ones(40))
    counts = random.multinomial(20_000, law).astype(float)
    right = chi_square(counts, law)
    assert right.ratio < right.limit
    wrong = law.copy()
    order = np.argsort(law)
    wrong[order[-1]] -= right.resolution
    wrong[order[-2]] += right.resolution
    assert chi_square(random.multinomial(20_000, wrong).astype(float), law).ratio > right.limit


def test_a_state_outside_the_law_fails() -> None:
    assert chi_square(np.array([50.0, 50.0, 1.0]), np.array([0.5, 0.5, 0.0])).p == 0.0
