"""Pearson's test of sampled counts against an exact law, with its power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from nabla.theory.arrays import Array

#: A smaller p-value fails.
LEVEL = 1e-3


@dataclass(frozen=True)
class ChiSquare:
    """Result of the test.

    Args:
        ratio: χ² over its degrees of freedom; 1 in the mean if the law is right.
        limit: the ratio whose p-value is ``LEVEL``.
        p: p-value.
        cells: number of pooled cells.
        resolution: total variation that is found with a probability of 99 % or more.
        distance: TV between shares and law (positively biased by noise).
    """

    ratio: float
    limit: float
    p: float
    cells: int
    resolution: float
    distance: float


def chi_square(counts: Array, law: Array, *, expected: float = 5.0) -> ChiSquare:
    """Cells with fewer than ``expected`` expected counts are pooled into one."""
    total = float(counts.sum())
    mean = total * law
    small = mean < expected
    observed, predicted = counts[~small], mean[~small]
    if small.any():
        observed = np.append(observed, counts[small].sum())
        predicted = np.append(predicted, mean[small].sum())
    if predicted[-1] == 0:
        impossible = observed[-1] > 0
        observed, predicted = observed[:-1], predicted[:-1]
        if impossible:
            return ChiSquare(np.inf, 1.0, 0.0, len(predicted), 0.0, 1.0)
    freedom = max(len(predicted) - 1, 1)
    value = float(((observed - predicted) ** 2 / predicted).sum())
    limit = float(stats.chi2.ppf(1 - LEVEL, freedom))
    # χ² of a law at distance TV has a noncentrality of at least 4 N TV².
    powers = np.linspace(0.002, 1, 500)
    strong = stats.ncx2.sf(limit, freedom, 4 * total * powers**2) >= 0.99
    resolution = float(powers[strong.argmax()]) if strong.any() else 1.0
    distance = 0.5 * float(np.abs(observed - predicted).sum()) / total
    return ChiSquare(
        value / freedom,
        limit / freedom,
        float(stats.chi2.sf(value, freedom)),
        freedom + 1,
        resolution,
        distance,
    )
