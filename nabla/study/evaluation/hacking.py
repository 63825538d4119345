"""Reward against correctness: whether what a reward prefers is right, in a few numbers per method."""

from __future__ import annotations

from typing import Any

import numpy as np

from nabla.study.evaluation.results import Results
from nabla.study.evaluation.statistics import bootstrap_share

#: Equal parts of a method's accepted proposals, by their new reward.
PARTS = 5
#: Columns of the CSV; shares and their 95 % intervals from 0 to 1.
HACKING = ("task", "method", "proposals", "reward", "right", "low", "high")


def hacking(results: Results) -> list[dict[str, Any]]:
    """A row for each part: how many proposals, their mean reward, the share of right responses and its
    interval over problems. Methods with fewer accepted proposals than parts have none, nor have tasks that
    nobody grades."""
    found = []
    for (task, method), run in results.runs.items():
        taken = [p for p in run.proposals if p[3] and p[2] is not None and p[5] is not None]
        if task in results.ungraded or len(taken) < PARTS:
            continue
        taken.sort(key=lambda p: p[2])
        for chosen in np.array_split(np.arange(len(taken)), PARTS):
            part = [taken[i] for i in chosen]
            right = np.array([bool(p[5]) for p in part])
            low, high = bootstrap_share(right, np.array([p[6] for p in part]), resamples=999)
            numbers = (float(np.mean([p[2] for p in part])), float(right.mean()), low, high)
            found.append(dict(zip(HACKING, (task, method, len(part), *numbers), strict=True)))
    return found
