"""Ranking measures of a reward: area under the curve and ordered pairs."""

from __future__ import annotations

from collections.abc import Sequence


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Probability that a right response scores above a wrong one; ties count one half."""
    pairs = sorted(zip(scores, right, strict=True))
    positives = sum(right)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        return float("nan")
    total, below, i = 0.0, 0, 0
    while i < len(pairs):
        j = i
        while j < len(pairs) and pairs[j][0] == pairs[i][0]:
            j += 1
        here = sum(ok for _, ok in pairs[i:j])
        wrong = (j - i) - here
        total += here * (below + wrong / 2)
        below += wrong
        i = j
    return total / (positives * negatives)


def pair_accuracy(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]
) -> tuple[float, int]:
    """Share of (right, wrong) pairs of the same problem that are in order, and their number.

    `scores[i][k]` belongs to the k-th response to problem i; ties count one half.
    """
    good, count = 0.0, 0
    for row, marks in zip(scores, right, strict=True):
        high = [s for s, ok in zip(row, marks, strict=True) if ok]
        low = [s for s, ok in zip(row, marks, strict=True) if not ok]
        good += sum((h > w) + 0.5 * (h == w) for h in high for w in low)
        count += len(high) * len(low)
    return (good / count if count else float("nan")), count
