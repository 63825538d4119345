"""Votes over equal answers."""

from __future__ import annotations

from collections.abc import Sequence


def heaviest(
    groups: Sequence[int | None], weights: Sequence[float], ties: Sequence[float] = ()
) -> int | None:
    """The group with the largest sum of weights; None if nobody has an answer.

    Args:
        groups: group of each voter's answer, None without one.
        weights: of each voter.
        ties: decides between groups of equal weight by its largest value in the group; after it (or
            without it) the group that appears first wins.
    """
    totals: dict[int, float] = {}
    bests: dict[int, float] = {}
    second = ties or [0.0] * len(groups)
    for group, weight, tie in zip(groups, weights, second, strict=True):
        if group is not None:
            totals[group] = totals.get(group, 0.0) + weight
            bests[group] = max(bests.get(group, tie), tie)
    return max(totals, key=lambda group: (totals[group], bests[group]), default=None)
