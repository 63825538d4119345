"""Measures of a reward: area under the curve, ordered pairs, calibration."""

from __future__ import annotations

import math
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


def calibration_error(logits: Sequence[float], rate: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error: mean gap between the probability that a logit stands for and the rate that
    was found, over `bins` equal ranges of the probability, weighted by how many fall into each."""
    said = [1 / (1 + math.exp(-min(max(x, -30.0), 30.0))) for x in logits]
    groups: dict[int, list[tuple[float, float]]] = {}
    for p, found in zip(said, rate, strict=True):
        groups.setdefault(min(int(p * bins), bins - 1), []).append((p, found))
    gaps = (abs(sum(p - found for p, found in group)) for group in groups.values())
    return sum(gaps) / len(said) if said else float("nan")


def first_wrong(
    values: Sequence[Sequence[float]], fine: Sequence[Sequence[bool]]
) -> tuple[list[float], list[float]]:
    """Values of the tokens before the first wrong one, and of the first wrong ones.

    `values[i][j]` and `fine[i][j]` belong to token j of text i; once wrong, a text stays so.
    """
    good: list[float] = []
    bad: list[float] = []
    for row, marks in zip(values, fine, strict=True):
        end = marks.index(False) if False in marks else len(marks)
        good += row[:end]
        bad += row[end : end + 1]
    return good, bad
