"""Statistics of measured rates, by scipy and statsmodels.

Answers to one problem under several seeds are not independent, so the problem is the unit of every
interval and test: seeds are averaged within it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from nabla.core import html
from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra

Array = np.ndarray

#: Gains that differ by less, from each other or from 0, are equal but for rounding.
EQUAL = 1e-9


@dataclass(frozen=True)
class Proportion:
    """``successes`` of ``total``; seeds averaged within a problem make successes fractional."""

    successes: float
    total: int

    @property
    def value(self) -> float:
        """NaN for none of none."""
        return self.successes / self.total if self.total else float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's interval."""
        return wilson(self.successes, self.total, level)


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same problems.

    Args:
        difference: of accuracies, or of the means of a number, first minus second.
        low, high: its paired bootstrap interval.
        p: of the difference, see :func:`paired_p`.
        first_only, second_only: problems that one of them alone solves, see :func:`solved`; of a number,
            those on which it has the higher one.
        p_mcnemar: McNemar's exact test of these two; None for a number.
        detectable: smallest true difference that this many problems find with the given power.
    """

    difference: float
    low: float
    high: float
    p: float
    first_only: int
    second_only: int
    p_mcnemar: float | None
    detectable: float | None

    def _repr_html_(self) -> str:
        verb = "higher with" if self.p_mcnemar is None else "solved by"
        facts: dict[str, object] = {
            "first minus second [95 %]": f"{self.difference:.4g} [{self.low:.4g}, {self.high:.4g}]",
            "p": f"{self.p:.3g}",
            f"problems {verb} the first alone": self.first_only,
            f"problems {verb} the second alone": self.second_only,
        }
        if self.p_mcnemar is not None:
            facts["p (McNemar)"] = f"{self.p_mcnemar:.3g}"
        if self.detectable is not None:
            facts["smallest difference that can be found"] = f"{self.detectable:.4g}"
        return html.card("Comparison", facts)


def wilson(successes: float, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (JASA 22, 1927); (0, 1) for no trials.

    Raises ConfigError unless ``0 <= successes <= total`` and ``0 < level < 1``.
    """
    if not 0 <= successes <= total:
        raise ConfigError("successes must be between 0 and total", got=(successes, total))
    _require_level(level)
    if total == 0:
        return 0.0, 1.0
    require_extra("eval", "statsmodels", purpose="Statistics")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, total, alpha=1 - level, method="wilson")
    # Exact at the ends, not off by a rounding.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == total else float(high))


def bootstrap_difference(
    first: Float[Array, " problems"],
    second: Float[Array, " as_many"],
    *,
    level: float = 0.95,
    resamples: int = 4999,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of ``first - second`` over resampled problems (Efron, 1979).

    Raises ConfigError for samples that are not paired.
    """
    _require_paired(first, second)
    _require_level(level)
    gains = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if len(gains) < 2 or np.all(gains == gains[0]):  # nothing to resample
        return float(gains[0]), float(gains[0])
    return _percentile((gains,), np.mean, level=level, resamples=resamples, seed=seed)


def bootstrap_share(
    chosen: Bool[Array, " items"],
    problems: Int[Array, " items"],
    *,
    level: float = 0.95,
    resamples: int = 4999,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a share of items that belong to problems, several to one: whole problems are
    resampled (Efron, 1979), since their items are not independent. Where all items agree, or belong to one
    problem, there is nothing to resample: Wilson's interval for as many trials as there are problems.

    Args:
        chosen: whether an item counts.
        problems: the problem of each item.
    """
    _require_level(level)
    place = np.unique(problems, return_inverse=True)[1]
    top, bottom = np.bincount(place, weights=chosen), np.bincount(place)
    share = float(np.mean(chosen))
    if len(bottom) < 2 or share in (0.0, 1.0):
        return wilson(share * len(bottom), len(bottom), level)
    return _percentile(
        (top, bottom),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        level=level,
        resamples=resamples,
        seed=seed,
        paired=True,
        vectorized=True,
        batch=500,
    )


def _percentile(
    samples: tuple[Array, ...],
    statistic: Callable[..., Any],
    *,
    level: float,
    resamples: int,
    seed: int,
    **options: Any,
) -> tuple[float, float]:
    """scipy's percentile bootstrap of a statistic, from an explicit generator."""
    require_extra("eval", "scipy", purpose="Statistics")
    from scipy.stats import bootstrap

    found = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
        **options,
    ).confidence_interval
    return float(found.low), float(found.high)


def solved(correct: Bool[Array, "seeds problems"]) -> Bool[Array, " problems"]:
    """Problems answered rightly under more than half of the seeds."""
    majority: Array = np.asarray(correct).mean(0) > 0.5
    return majority


def mcnemar(first: Bool[Array, " problems"], second: Bool[Array, " as_many"]) -> tuple[int, int, float]:
    """(solved by the first alone, by the second alone, exact two-sided p) (McNemar, Psychometrika 12, 1947).

    Raises ConfigError for samples that are not paired.
    """
    _require_paired(first, second)
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    require_extra("eval", "statsmodels", purpose="Statistics")
    from statsmodels.stats.contingency_tables import mcnemar as test

    table = [[int((one & two).sum()), only_first], [only_second, int((~one & ~two).sum())]]
    return only_first, only_second, min(1.0, float(test(table, exact=True).pvalue))


def paired_t(gains: Float[Array, " problems"]) -> float:
    """Two-sided p of a mean of 0, by Student's t (Biometrika 6, 1908). Gains without spread, which a t-test
    takes for certain however few they are, go through the sign test; no gains, and those that are nothing
    but rounding (1 - 2/3 less 1/3), show nothing."""
    if not np.any(np.abs(gains) >= EQUAL):
        return 1.0
    require_extra("eval", "scipy", purpose="Statistics")
    from scipy.stats import binomtest, ttest_1samp

    if np.ptp(gains) < EQUAL:
        return float(binomtest(len(gains), len(gains)).pvalue)
    return float(ttest_1samp(gains, 0.0).pvalue)


def number_p(first: Float[Array, "runs problems"], second: Float[Array, "as_many problems"]) -> float:
    """Two-sided p of no difference between mean numbers on the same problems: a paired t-test of the means
    of those problems where both have one. No such problems show nothing."""
    one, two = common_means(first, second)
    return paired_t(one - two) if len(one) else 1.0


def common_means(*samples: Float[Array, "_ problems"]) -> list[Float[Array, " common"]]:
    """Each sample's means over its runs that have a number (are not NaN), of the problems where every sample
    has one."""
    common = np.all([~np.isnan(sample).all(0) for sample in samples], axis=0)
    return [np.nanmean(sample[:, common], axis=0) for sample in samples]


def bootstrap_mean(
    values: Float[Array, " problems"], *, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high): the percentile interval of :func:`bootstrap_difference`, of a mean itself."""
    values = np.asarray(values, dtype=float)
    return (float(values.mean()), *bootstrap_difference(values, np.zeros_like(values), level=level))


def paired_p(first: Bool[Array, "runs problems"], second: Bool[Array, "as_many problems"]) -> float:
    """Two-sided p of no difference between mean accuracies on the same problems: McNemar's exact test if each
    side ran once, else a paired t-test of the problems' means. The runs' majorities are not tested: they can
    differ in the other direction than the means.

    Raises ConfigError for samples that are not paired.
    """
    if len(first) == 1 and len(second) == 1:
        return mcnemar(first[0], second[0])[2]
    one, two = np.asarray(first, dtype=float).mean(0), np.asarray(second, dtype=float).mean(0)
    _require_paired(one, two)
    return paired_t(one - two)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    if not p_values:
        return []
    require_extra("eval", "statsmodels", purpose="Statistics")
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def detectable(
    gains: Float[Array, " problems"], *, level: float = 0.95, power: float = 0.8
) -> float | None:
    """Smallest mean difference that a paired t-test on as many problems, with the spread of these, finds
    with the given power. None where there is no spread to go by."""
    gains = np.asarray(gains, dtype=float)
    spread = float(gains.std(ddof=1)) if len(gains) > 1 else 0.0
    if spread < EQUAL:
        return None
    require_extra("eval", "statsmodels", purpose="Statistics")
    from statsmodels.stats.power import TTestPower

    size = TTestPower().solve_power(nobs=len(gains), alpha=1 - level, power=power)
    return float(np.squeeze(size)) * spread


def compare(
    first: Bool[Array, "seeds problems"], second: Bool[Array, "seeds problems"], *, level: float = 0.95
) -> Comparison:
    """Two methods on the same problems and seeds."""
    one, two = np.asarray(first, dtype=float).mean(0), np.asarray(second, dtype=float).mean(0)
    low, high = bootstrap_difference(one, two, level=level)
    difference = float(one.mean() - two.mean())
    majority = mcnemar(solved(first), solved(second))
    smallest = detectable(one - two, level=level)
    return Comparison(difference, low, high, paired_p(first, second), *majority, smallest)


def compare_numbers(
    first: Float[Array, "seeds problems"], second: Float[Array, "seeds problems"], *, level: float = 0.95
) -> Comparison | None:
    """Two methods' numbers on the problems where both have one; None where there is no such problem."""
    one, two = common_means(first, second)
    if not len(one):
        return None
    low, high = bootstrap_difference(one, two, level=level)
    difference = float(one.mean() - two.mean())
    smallest = detectable(one - two, level=level)
    return Comparison(difference, low, high, paired_t(one - two), *higher(one, two), None, smallest)


def higher(first: Float[Array, " problems"], second: Float[Array, " as_many"]) -> tuple[int, int]:
    """(problems on which the first number is higher, on which the second is), beyond rounding."""
    gains = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return int((gains >= EQUAL).sum()), int((gains <= -EQUAL).sum())


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that one of ``k`` of the samples, drawn without replacement, is right: the unbiased estimator
    ``1 - C(n-c, k) / C(n, k)`` (Chen et al., arXiv 2107.03374, Eq. 1).

    Raises ConfigError unless ``0 <= right <= samples`` and ``1 <= k <= samples``.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ConfigError("pass@k needs 0 <= right <= samples and 1 <= k <= samples", got=(samples, right, k))
    require_extra("eval", "scipy", purpose="Statistics")
    from scipy.special import comb

    return float(1 - comb(samples - right, k, exact=True) / comb(samples, k, exact=True))


def best_of_k(rewards: Float[Array, " samples"], right: Float[Array, " as_many"], k: int) -> float:
    """Expected value of the sample with the highest reward among ``k``, drawn without replacement: the
    unbiased estimator from one pool, over all subsets, ``Σ [C(b, k) - C(a, k)] / C(n, k)`` times the mean of
    those that share a reward and take the places ``a+1 ... b`` in ascending order. With the rewards' own
    values it is the expected best reward.

    Args:
        rewards: of the samples; one without a reward (NaN) is chosen last.
        right: what is counted of each: whether it is right, or any number.
        k: samples that are drawn.

    Raises ConfigError unless ``1 <= k <= samples``.
    """
    _require_paired(rewards, right)
    count = len(rewards)
    if not 1 <= k <= count:
        raise ConfigError("best-of-k needs 1 <= k <= samples", got=(count, k))
    order = np.where(np.isnan(rewards), -np.inf, rewards)
    total, below = 0.0, 0
    for value in np.unique(order):
        group = order == value
        upto = below + int(group.sum())
        chance = (math.comb(upto, k) - math.comb(below, k)) / math.comb(count, k)
        total += chance * float(np.asarray(right, dtype=float)[group].mean())
        below = upto
    return total


def unbeaten(
    values: Sequence[Shaped[Array, "seeds problems"]],
    *,
    level: float = 0.95,
    test: Callable[[Array, Array], float] = paired_p,
) -> int | None:
    """Index of the method that is better than every other one by a paired test, Holm-corrected over all
    pairs; None where no method is.

    Args:
        values: of each method: right or wrong, or numbers (NaN for none).
        level: 1 minus the chance of an error.
        test: :func:`paired_p` for right or wrong, :func:`number_p` for numbers.
    """
    if len(values) < 2:
        return None
    pairs = [(i, j) for i in range(len(values)) for j in range(i + 1, len(values))]
    adjusted = holm([test(values[i], values[j]) for i, j in pairs])
    beaten: dict[int, set[int]] = {i: set() for i in range(len(values))}
    for (i, j), p in zip(pairs, adjusted, strict=True):
        if p < 1 - level:
            one, two = common_means(np.asarray(values[i], dtype=float), np.asarray(values[j], dtype=float))
            winner, loser = (i, j) if one.mean() > two.mean() else (j, i)
            beaten[winner].add(loser)
    return next((i for i, losers in beaten.items() if len(losers) == len(values) - 1), None)


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError("level must be between 0 and 1", got=level)


def _require_paired(first: Any, second: Any) -> None:
    if np.shape(first) != np.shape(second) or np.ndim(first) != 1 or not len(first):
        raise ConfigError(
            "Paired samples are of the same problems, at least one", got=(np.shape(first), np.shape(second))
        )
