"""Numbers with 95 % intervals. What belongs to one problem is not independent, so whole problems are
resampled (Efron, 1979), always from the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nabla.core.extras import require_extra

LEVEL = 0.95
RESAMPLES = 2000
#: Bins of equal width of a calibration.
BINS = 10

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Args:
        value: NaN where nothing could be measured.
        low, high: of the interval; NaN of a single problem, which says nothing of another one.
        count: problems that it rests on.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def known(self) -> bool:
        """Whether anything could be measured."""
        return not math.isnan(self.value)

    def __str__(self) -> str:
        return self.shown()

    def shown(self, sign: str = "") -> str:
        """With the interval, where there is one; ``sign`` is + for a difference."""
        if not self.known:
            return "-"
        if math.isnan(self.low):
            return f"{self.value:{sign}.2f} (one problem)"
        return f"{self.value:{sign}.2f} [{self.low:{sign}.2f}, {self.high:{sign}.2f}]"


UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Probability that a positive's score is above a negative's, ties counting half (Mann and Whitney, 1947);
    NaN without both, or with a score that is NaN."""
    s, p = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if np.isnan(s).any() or not p.any() or p.all():
        return math.nan
    return float(_above(s[p], np.sort(s[~p])) / (p.sum() * (~p).sum()))


def _above(ones: Array, others: Array) -> float:
    """Pairs in which the first is larger, ties half; ``others`` are sorted."""
    strictly = np.searchsorted(others, ones, side="left")
    return float((strictly + np.searchsorted(others, ones, side="right")).sum() / 2)


def pooled(scores: Sequence[float], positive: Sequence[bool], problems: Sequence[str]) -> Estimate:
    """The AUC over items of all problems together; items without a score are left out."""
    s, p = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    names = np.asarray(problems)[~np.isnan(s)]
    s, p = s[~np.isnan(s)], p[~np.isnan(s)]
    if not p.any() or p.all():
        return UNKNOWN
    place = np.unique(names, return_inverse=True)[1]
    count = int(place.max()) + 1
    ones = [s[p & (place == i)] for i in range(count)]
    others = [np.sort(s[~p & (place == i)]) for i in range(count)]
    pairs = np.array([[_above(one, other) for other in others] for one in ones])
    plus, minus = (np.array([len(x) for x in side], dtype=float) for side in (ones, others))
    times = _resamples(count)
    bottom = (times @ plus) * (times @ minus)
    top = np.einsum("ri,ij,rj->r", times, pairs, times)
    found = top[bottom > 0] / bottom[bottom > 0]
    return _estimate(float(pairs.sum() / (plus.sum() * minus.sum())), found, count)


def average(values: Mapping[str, float]) -> Estimate:
    """The mean of a number per problem; those that are NaN are left out."""
    return average_of_all({key: [value] for key, value in values.items()})


def average_of_all(values: Mapping[str, Sequence[float]]) -> Estimate:
    """The mean of all problems' numbers, several of each; those that are NaN are left out."""
    every = ([value for value in own if not math.isnan(value)] for own in values.values())
    known = [own for own in every if own]
    if not known:
        return UNKNOWN
    top, bottom = (np.array([make(own) for own in known], dtype=float) for make in (sum, len))
    times = _resamples(len(known))
    return _estimate(float(top.sum() / bottom.sum()), times @ top / (times @ bottom), len(known))


def difference(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate:
    """The mean of first minus second, over problems that both know."""
    return average({key: first[key] - second[key] for key in first if key in second})


def _resamples(count: int) -> Array:
    """How often each of so many problems is taken."""
    return np.random.default_rng(0).multinomial(count, [1 / count] * count, size=RESAMPLES).astype(float)


def _estimate(value: float, found: Array, count: int) -> Estimate:
    if count < 2:  # nothing to resample
        return Estimate(value, math.nan, math.nan, count)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), count)


def agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation over what both know; NaN for fewer than three, or where one is constant."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not math.isnan(a) and not math.isnan(b)]
    if len(pairs) < 3 or len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return math.nan
    require_extra("eval", "scipy", purpose="Statistics")
    from scipy.stats import spearmanr

    return float(spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)


@dataclass(frozen=True)
class Bin:
    """Texts whose probability of being right is said to be between ``low`` and ``high``.

    Args:
        low, high: of the bin.
        count: texts in it.
        said: their mean probability.
        right: share that is right.
    """

    low: float
    high: float
    count: int
    said: float
    right: float


def calibration(log_odds: Sequence[float], right: Sequence[bool]) -> tuple[float, list[Bin]]:
    """(expected calibration error, the bins that are not empty), where a reward is read as log-odds of being
    right (arXiv 1706.04599, Eq. 3)."""
    known = [(x, r) for x, r in zip(log_odds, right, strict=True) if not math.isnan(x)]
    said = np.array([1 / (1 + math.exp(-max(min(x, 500.0), -500.0))) for x, _ in known])
    truth = np.array([r for _, r in known], dtype=float)
    place = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = [
        Bin(i / BINS, (i + 1) / BINS, int(here.sum()), float(said[here].mean()), float(truth[here].mean()))
        for i in range(BINS)
        if (here := place == i).any()
    ]
    total = sum(b.count for b in bins)
    error = sum(b.count * abs(b.said - b.right) for b in bins) / total if total else math.nan
    return error, bins


@dataclass(frozen=True)
class Labelled:
    """The steps of a text, judged.

    Args:
        values: of each step, NaN where there is none.
        label: number of the first wrong step, from 0; -1: all are right.
    """

    values: tuple[float, ...]
    label: int


@dataclass(frozen=True)
class F1:
    """The score of ProcessBench (arXiv 2412.06559).

    Args:
        value: harmonic mean of both accuracies.
        wrong: share of wrong texts whose first wrong step is found exactly.
        right: share of right texts in which no step is called wrong.
        threshold: below which a step is called wrong; of the whole file.
        count: texts.
    """

    value: float
    wrong: float
    right: float
    threshold: float
    count: int


def f1(rows: Sequence[Labelled]) -> F1 | None:
    """The first step below a threshold is called wrong. The threshold of each half of the texts is the one
    that is best on the other half, so that none is judged by a threshold that has seen it; None without right
    and wrong texts in both halves."""
    kinds = [[r for r in rows if r.label >= 0], [r for r in rows if r.label < 0]]
    halves = [[row for kind in kinds for row in kind[half::2]] for half in (0, 1)]
    if not all(any(r.label < 0 for r in half) and any(r.label >= 0 for r in half) for half in halves):
        return None
    hits = []
    for half, other in (halves, halves[::-1]):
        threshold = _best(other)
        hits += [(row.label, _first_below(row.values, threshold) == row.label) for row in half]
    wrong, right = _accuracies(hits)
    return F1(_harmonic(wrong, right), wrong, right, _best(rows), len(rows))


def _best(rows: Sequence[Labelled]) -> float:
    """The threshold of the highest score, in the middle of those that share it; 64 quantiles are tried."""
    values = [v for row in rows for v in row.values if not math.isnan(v)]
    tried = sorted({float(t) for t in np.quantile(values, np.linspace(0, 1, 64))}) if values else [0.0]

    def score(threshold: float) -> float:
        found = [(row.label, _first_below(row.values, threshold) == row.label) for row in rows]
        return _harmonic(*_accuracies(found))

    scores = [score(threshold) for threshold in tried]
    best = [threshold for threshold, found in zip(tried, scores, strict=True) if found == max(scores)]
    return best[len(best) // 2]


def _first_below(values: Sequence[float], threshold: float) -> int:
    return next((i for i, value in enumerate(values) if value < threshold), -1)


def _accuracies(hits: Sequence[tuple[int, bool]]) -> tuple[float, float]:
    wrong = [hit for label, hit in hits if label >= 0]
    right = [hit for label, hit in hits if label < 0]
    return sum(wrong) / len(wrong), sum(right) / len(right)


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
