"""Results condensed: one row per task, budget and method, and comparisons with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.core.errors import ConfigError
from nabla.study.evaluation.hacking import hacking
from nabla.study.evaluation.metric import REWARD, Metric
from nabla.study.evaluation.results import Cell, Results, Runs
from nabla.study.evaluation.statistics import (
    Array,
    Proportion,
    best_of_k,
    bootstrap_mean,
    bootstrap_share,
    common_means,
    compare,
    compare_numbers,
    holm,
    number_p,
    paired_p,
    pass_at_k,
    unbeaten,
)

LEVEL = 0.95
METRIC = Metric()


def summarise(results: Results) -> dict[str, Any]:
    """Everything that tables and plots show, JSON-ready.

    ``best`` marks a method that a paired test, Holm-corrected over all pairs of methods under that budget,
    finds better than every other one. Comparisons are Holm-corrected over the methods that are compared with
    the reference under one budget of one task.

    Where the metric is a number, a mean (``mean``) stands in place of the accuracy, over the problems with a
    number, and comparisons are of the problems where both methods have one (``pairs``).
    """
    rows, comparisons = [], []
    metric = results.metric
    test = paired_p if metric.rate else number_p
    for task, problems in results.tasks.items():
        methods = results.methods_of(task)
        for unit, value in results.ladder:
            cells = {method: results.cells[task, method, unit, value] for method in methods}
            values = [cell.correct if metric.rate else cell.value for cell in cells.values()]
            best = unbeaten(values, level=LEVEL, test=test)
            for index, (method, cell) in enumerate(cells.items()):
                labels = {"task": task, "unit": unit, "value": value, "method": method}
                own = _row(cell, len(problems), metric, graded=task not in results.ungraded)
                rows.append({**labels, "best": index == best, **own})
            budget = {"task": task, "unit": unit, "value": value}
            comparisons += _comparisons(results.reference, cells, budget, metric)
    return {
        "level": LEVEL,
        **({} if metric.rate else {"metric": metric.name}),
        "complete": results.complete,
        "problems": {task: len(problems) for task, problems in results.tasks.items()},
        "seeds": results.seeds,
        "reference": results.reference,
        "names": dict(results.names),
        "rows": rows,
        "comparisons": comparisons,
        "hacking": hacking(results),
        "runs": [
            {"task": task, "method": method, **_run(run, metric, graded=task not in results.ungraded)}
            for (task, method), run in results.runs.items()
        ],
        **({"unreached": list(results.unreached)} if results.unreached else {}),
    }


def metric_of(summary: Mapping[str, Any]) -> Metric:
    """What a summary's means are of."""
    return Metric(summary["metric"]) if "metric" in summary else Metric()


def require_met(results: Results) -> None:
    """Raises ConfigError for a budget within which no method had an answer to any problem."""
    for unit, value in results.ladder:
        cells = [cell for key, cell in results.cells.items() if key[2:] == (unit, value)]
        if any(cell.answered.any() for cell in cells):
            continue
        firsts = [run.first[unit] for run in results.runs.values()]
        costs = [float(np.nanmin(first)) for first in firsts if not np.isnan(first).all()]
        seen = f"The cheapest first answer took {min(costs):g} {unit}." if costs else "Every run failed."
        raise ConfigError(
            f"Within {value:g} {unit} no method had an answer to any problem",
            got=value,
            fix=f"{seen} The records are kept; use larger budgets in another --output.",
        )


def accuracy(correct: Array) -> tuple[float, float, float]:
    """(accuracy, low, high): Wilson's interval over problems, seeds averaged within each."""
    found = Proportion(float(correct.mean(0).sum()), correct.shape[1])
    return (found.value, *found.interval(LEVEL))


def mean(values: Array) -> tuple[float, float, float] | tuple[None, None, None]:
    """(mean, low, high) of numbers over the problems that have one, seeds averaged within each, by the
    bootstrap; None where no problem has one."""
    known = ~np.isnan(values).all(0)
    return bootstrap_mean(np.nanmean(values[:, known], axis=0), level=LEVEL) if known.any() else (None,) * 3


def _level(correct: Array, values: Array, metric: Metric, *, graded: bool) -> dict[str, Any]:
    """The mean of the metric and its interval; of a number the accuracy beside it, where there is one."""
    if metric.rate:
        return dict(zip(("accuracy", "low", "high"), accuracy(correct), strict=True))
    found: dict[str, Any] = dict(zip(("mean", "low", "high"), mean(values), strict=True))
    measured = float((~np.isnan(values)).mean())
    return {**found, "measured": measured, "accuracy": float(correct.mean()) if graded else None}


def _row(
    cell: Cell, problems: int, metric: Metric = METRIC, *, graded: bool = True
) -> dict[str, Any]:
    values = cell.correct.astype(float) if metric.rate else cell.value
    reward = mean(cell.reward)
    return {
        "problems": problems,
        **_level(cell.correct, cell.value, metric, graded=graded),
        "by_seed": [_mean(own) for own in values],
        "answered": float(cell.answered.mean()),
        "exhausted": float(cell.exhausted.mean()),
        "failed": int(cell.failed.sum()),
        "pass_at_k": _pass(cell.correct) if graded else None,
        "best_of_k": _best(values if metric.name == REWARD else cell.reward, values),
        **dict(zip(("reward", "reward_low", "reward_high"), reward, strict=True)),
        **{unit: _mean(cell.cost[unit]) for unit in UNITS},
        "critical_steps": _complete(cell.cost["critical_steps"], cell.cost["calls"]),
        **({} if np.isnan(cell.score).all() else {"score": _mean(cell.score)}),
    }


def _run(run: Runs, metric: Metric, *, graded: bool) -> dict[str, Any]:
    count = run.correct.size
    proposals = run.proposals
    accepted = [p for p in proposals if p[3]]
    rejected = np.array([not p[3] for p in proposals])
    return {
        **_level(run.correct, run.value, metric, graded=graded),
        "failed": int(run.failed.sum()),
        "errors": run.errors,
        "mean_length": float(run.length.mean()),
        **{unit: _mean(run.cost[unit]) for unit in UNITS},
        "critical_steps": _complete(run.cost["critical_steps"], run.cost["calls"]),
        "peak_bytes": run.peak_bytes,
        **({"prepared_flops": run.prepared_flops} if run.prepared_flops else {}),
        "phases": {
            phase: {unit: total / count for unit, total in usage.items()}
            for phase, usage in run.phases.items()
        },
        "proposals": len(proposals),
        "accepted": len(accepted),
        "rejection": None
        if not proposals
        else [
            float(rejected.mean()),
            *bootstrap_share(rejected, np.array([p[6] for p in proposals]), level=LEVEL),
        ],
        "effects": None if not graded else {
            "wrong_to_right": sum(not p[4] and p[5] for p in accepted),
            "right_to_wrong": sum(p[4] and not p[5] for p in accepted),
            "wrong_to_wrong": sum(not p[4] and not p[5] for p in accepted),
            "right_to_right": sum(p[4] and p[5] for p in accepted),
        },
    }


def _comparisons(
    reference: str, cells: dict[str, Cell], labels: dict[str, Any], metric: Metric
) -> list[dict[str, Any]]:
    if reference not in cells:
        return []
    own = cells[reference]
    found, pairs = {}, {}
    for method, cell in cells.items():
        if method == reference:
            continue
        if metric.rate:
            found[method] = compare(own.correct, cell.correct, level=LEVEL)
        elif (numbers := compare_numbers(own.value, cell.value, level=LEVEL)) is not None:
            found[method] = numbers
            pairs[method] = {"pairs": len(common_means(own.value, cell.value)[0])}
    adjusted = holm([c.p for c in found.values()])
    labels = {**labels, "reference": reference}
    return [
        {**labels, "method": method, **asdict(c), "p_holm": p, **pairs.get(method, {})}
        for (method, c), p in zip(found.items(), adjusted, strict=True)
    ]


def _pass(correct: Array) -> dict[str, float]:
    seeds, problems = correct.shape
    right = correct.sum(0)
    return {
        str(k): sum(pass_at_k(seeds, int(c), k) for c in right) / problems for k in range(1, seeds + 1)
    }


def _best(reward: Array, values: Array) -> dict[str, float] | None:
    """The metric of the best of k runs by their reward, over the problems whose runs all have a number; None
    where there is none, or nothing was scored."""
    chosen = np.flatnonzero(~np.isnan(values).any(0))
    if np.isnan(reward).all() or not len(chosen):
        return None
    seeds = len(values)
    return {
        str(k): sum(best_of_k(reward[:, p], values[:, p], k) for p in chosen) / len(chosen)
        for k in range(1, seeds + 1)
    }


def _complete(values: Array, wanted: Array) -> float | None:
    """The mean; None where a journal of an earlier version holds some of the wanted ones without it."""
    return None if (np.isnan(values) & ~np.isnan(wanted)).any() else _mean(values)


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
