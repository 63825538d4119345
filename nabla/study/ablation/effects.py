"""What the factors do: differences of accuracy, paired by problem, and of cost.

A level is all points that have it. In a grid the other factors are balanced, so the mean over a level's
points is its main effect's; in a search they are as the sampler drew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.study.ablation.results import Measure, PointResult, Study
from nabla.study.evaluation.statistics import (
    Array,
    bootstrap_difference,
    common_means,
    detectable,
    higher,
    holm,
    mcnemar,
    paired_p,
    paired_t,
    solved,
    wilson,
)
from nabla.study.evaluation.summary import mean

LEVEL = 0.95
#: What a row of points says before its levels, and behind its level of accuracy or of a mean.
POINT = "task", "unit", "value", "point"
FOUND = ("low", "high", "failed", "same_answers", *UNITS)


@dataclass(frozen=True)
class Effect:
    """A level against its factor's reference level.

    Args:
        task, factor, level, reference: labels.
        unit, value: budget; None for whole runs.
        points: number of points at the level.
        accuracy: at the level; where the metric is a number, its mean (``mean`` in a summary).
        difference: level minus reference; low, high: its paired bootstrap interval.
        level_only, reference_only: problems that one of them alone solves in more than half of its runs; of a
            number, those on which it has the higher mean.
        p: of the difference, see :func:`nabla.study.evaluation.statistics.paired_p`; p_holm: corrected
            over all effects on the task.
        detectable: smallest true difference that this many problems find with a power of 80 %.
        calls, tokens, flops, seconds: cost of a run as a multiple of the reference level's.
    """

    task: str
    unit: str | None
    value: float | None
    factor: str
    level: str
    reference: str
    points: int
    accuracy: float
    difference: float
    low: float
    high: float
    level_only: int
    reference_only: int
    p: float
    detectable: float | None
    calls: float | None
    tokens: float | None
    flops: float | None
    seconds: float | None
    p_holm: float = 1.0


@dataclass(frozen=True)
class Interaction:
    """How much the effect of one level changes with another factor: a difference of differences,
    ``(level, other) - (reference, other) - (level, other reference) + (reference, other reference)``.

    ``p`` is a paired t-test's over problems, ``p_holm`` corrected over all interactions on the task.
    """

    task: str
    unit: str | None
    value: float | None
    factor: str
    level: str
    other_factor: str
    other_level: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float | None
    p_holm: float = 1.0


def summarise(study: Study) -> dict[str, Any]:
    """Everything that tables and plots show, JSON-ready."""
    places = [(task, measure) for task in study.tasks for measure in study.measures]
    sizes = {task: study.reference.outcomes[task].responses.shape for task in study.tasks}
    name = partial(_named, key=study.metric.key)
    return {
        "level": LEVEL,
        **({} if study.metric.rate else {"metric": study.metric.name}),
        "grid": study.grid,
        "complete": study.complete,
        "factors": study.factors,
        "tasks": study.tasks,
        "problems": {task: size[1] for task, size in sizes.items()},
        "seeds": {task: size[0] for task, size in sizes.items()},
        "reference": study.reference.label,
        "points": [name(row) for place in places for row in _points(study, *place)],
        "effects": [name(asdict(e)) for place in places for e in effects(study, *place)],
        "cells": [cell for place in places for cell in cells(study, *place)],
        "interactions": [asdict(i) for place in places for i in interactions(study, *place)],
    }


def effects(study: Study, task: str, measure: Measure) -> list[Effect]:
    """Every level of every factor against the reference level; levels without points are left out."""
    found: list[Effect] = []
    for factor, (reference, *levels) in study.factors.items():
        for level in levels:
            own, other = _having(study, {factor: level}), _having(study, {factor: reference})
            if own and other and len(_means(study, [own, other], task, measure)[0]):
                found.append(_effect(study, task, measure, factor, level, reference, own, other))
    adjusted = holm([effect.p for effect in found])
    return [Effect(**{**asdict(e), "p_holm": p}) for e, p in zip(found, adjusted, strict=True)]


def interactions(study: Study, task: str, measure: Measure) -> list[Interaction]:
    """Every pair of levels of every two factors."""
    found: list[Interaction] = []
    for (one, (first, *levels)), (two, (second, *others)) in combinations(study.factors.items(), 2):
        for level in levels:
            for other in others:
                groups = [
                    _having(study, {one: a, two: b})
                    for a, b in ((level, other), (first, other), (level, second), (first, second))
                ]
                if not all(groups):
                    continue
                means = _means(study, groups, task, measure)
                if not len(means[0]):
                    continue
                there, here = means[0] - means[1], means[2] - means[3]
                gains = there - here
                interval = bootstrap_difference(there, here, level=LEVEL)
                labels = (task, *_budget(measure), one, level, two, other)
                tests = paired_t(gains), detectable(gains, level=LEVEL)
                found.append(Interaction(*labels, float(gains.mean()), *interval, *tests))
    adjusted = holm([i.p for i in found])
    return [Interaction(**{**asdict(i), "p_holm": p}) for i, p in zip(found, adjusted, strict=True)]


def cells(study: Study, task: str, measure: Measure) -> list[dict[str, Any]]:
    """Every two levels of every two factors against both reference levels: the difference, its interval and a
    paired t-test over problems, corrected over all cells of the task."""
    found: list[dict[str, Any]] = []
    for (one, levels), (two, others) in combinations(study.factors.items(), 2):
        base = _having(study, {one: levels[0], two: others[0]})
        for level, other in product(levels, others):
            own = _having(study, {one: level, two: other})
            if not own or not base or (level, other) == (levels[0], others[0]):
                continue
            mine, reference = _means(study, [own, base], task, measure)
            if not len(mine):
                continue
            low, high = bootstrap_difference(mine, reference, level=LEVEL)
            unit, value = _budget(measure)
            found.append(
                {
                    "task": task, "unit": unit, "value": value, "factor": one, "level": level,
                    "other_factor": two, "other_level": other, "difference": float((mine - reference).mean()),
                    "low": low, "high": high, "p": paired_t(mine - reference),
                }
            )  # fmt: skip
    adjusted = holm([cell["p"] for cell in found])
    return [{**cell, "p_holm": p} for cell, p in zip(found, adjusted, strict=True)]


def _effect(
    study: Study,
    task: str,
    measure: Measure,
    factor: str,
    level: str,
    reference: str,
    own: Sequence[PointResult],
    other: Sequence[PointResult],
) -> Effect:
    first, second = _runs(own, task, measure), _runs(other, task, measure)
    one, two = _means(study, [own, other], task, measure)
    low, high = bootstrap_difference(one, two, level=LEVEL)
    if study.metric.rate:
        only_first, only_second, _ = mcnemar(solved(first), solved(second))
        p = paired_p(first, second)
    else:
        only_first, only_second = higher(one, two)
        p = paired_t(one - two)
    calls, tokens, flops, seconds = (
        _ratio(_cost(own, task, unit), _cost(other, task, unit)) for unit in UNITS
    )
    return Effect(
        task, *_budget(measure), factor, level, reference, len(own),
        float(one.mean()), float(one.mean() - two.mean()), low, high, only_first, only_second, p,
        detectable(one - two, level=LEVEL), calls, tokens, flops, seconds,
    )  # fmt: skip


def _points(study: Study, task: str, measure: Measure) -> list[dict[str, Any]]:
    """Accuracy (or mean) and cost of each point, and how many of its answers are the reference point's."""
    answers = study.reference.outcomes[task].responses
    unit, value = _budget(measure)
    rows = []
    for point in study.points:
        outcome = point.outcomes[task]
        correct = outcome.correct[measure]
        average, low, high = mean(correct)
        if study.metric.rate:
            average = float(correct.mean())
            low, high = wilson(float(correct.mean(0).sum()), correct.shape[1], LEVEL)
        rows.append(
            {
                "task": task,
                "unit": unit,
                "value": value,
                "point": point.label,
                **{level_column(name): level for name, level in point.levels.items()},
                "accuracy": average,
                "low": low,
                "high": high,
                "failed": outcome.failed,
                "same_answers": float((outcome.responses == answers).mean()),
                **{name: _cost([point], task, name) for name in UNITS},
            }
        )
    return rows


def level_column(factor: str) -> str:
    """Of a factor's levels, beside the other columns: a name of one's own may be one of theirs."""
    return f"factor {factor}" if factor in (*POINT, "accuracy", "mean", *FOUND) else factor


def _having(study: Study, levels: dict[str, str]) -> list[PointResult]:
    return [
        point for point in study.points if all(point.levels[name] == label for name, label in levels.items())
    ]


def _runs(points: Sequence[PointResult], task: str, measure: Measure) -> Array:
    """``[points × seeds, problems]``."""
    return np.concatenate([point.outcomes[task].correct[measure] for point in points])


def _means(
    study: Study, groups: Sequence[Sequence[PointResult]], task: str, measure: Measure
) -> list[Array]:
    """Of each group's runs, by problem; of a number, on the problems where all groups have one."""
    runs = [_runs(group, task, measure) for group in groups]
    return [own.mean(0) for own in runs] if study.metric.rate else common_means(*runs)


def _named(row: dict[str, Any], key: str) -> dict[str, Any]:
    """The row with its mean under the metric's own name."""
    return {key if name == "accuracy" else name: value for name, value in row.items()}


def _cost(points: Sequence[PointResult], task: str, unit: str) -> float | None:
    """Mean over runs."""
    values = np.concatenate([point.outcomes[task].cost[unit] for point in points])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _ratio(one: float | None, two: float | None) -> float | None:
    return one / two if one is not None and two else None


def _budget(measure: Measure) -> tuple[str | None, float | None]:
    return (None, None) if measure is None else measure
