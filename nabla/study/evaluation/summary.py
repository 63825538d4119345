"""Results condensed: one row per task, budget and method, and comparisons with the reference."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.core.errors import ConfigError
from nabla.study.evaluation.results import Cell, Results, Runs
from nabla.study.evaluation.statistics import (
    Array,
    Proportion,
    best_of_k,
    bootstrap_difference,
    bootstrap_share,
    compare,
    holm,
    pass_at_k,
    unbeaten,
)

LEVEL = 0.95


def summarise(results: Results) -> dict[str, Any]:
    """Everything that tables and plots show, JSON-ready.

    ``best`` marks a method that a paired test, Holm-corrected over all pairs of methods under that budget,
    finds more accurate than every other one. Comparisons are Holm-corrected over the methods that are
    compared with the reference under one budget of one task.
    """
    rows, comparisons = [], []
    for task, problems in results.tasks.items():
        methods = results.methods_of(task)
        for unit, value in results.ladder:
            cells = {method: results.cells[task, method, unit, value] for method in methods}
            best = unbeaten([cell.correct for cell in cells.values()], level=LEVEL)
            for index, (method, cell) in enumerate(cells.items()):
                labels = {"task": task, "unit": unit, "value": value, "method": method}
                rows.append({**labels, "best": index == best, **_row(cell, len(problems))})
            budget = {"task": task, "unit": unit, "value": value}
            comparisons += _comparisons(results.reference, cells, budget)
    return {
        "level": LEVEL,
        "complete": results.complete,
        "problems": {task: len(problems) for task, problems in results.tasks.items()},
        "seeds": results.seeds,
        "reference": results.reference,
        "rows": rows,
        "comparisons": comparisons,
        "runs": [
            {"task": task, "method": method, **_run(run)} for (task, method), run in results.runs.items()
        ],
    }


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


def _row(cell: Cell, problems: int) -> dict[str, Any]:
    value, low, high = accuracy(cell.correct)
    return {
        "problems": problems,
        "accuracy": value,
        "low": low,
        "high": high,
        "by_seed": [float(v) for v in cell.correct.mean(1)],
        "answered": float(cell.answered.mean()),
        "exhausted": float(cell.exhausted.mean()),
        "failed": int(cell.failed.sum()),
        "pass_at_k": _pass(cell.correct),
        "best_of_k": _best(cell.reward, cell.correct),
        **_reward(cell.reward),
        **{unit: _mean(cell.cost[unit]) for unit in UNITS},
        "critical_steps": _complete(cell.cost["critical_steps"], cell.cost["calls"]),
    }


def _run(run: Runs) -> dict[str, Any]:
    value, low, high = accuracy(run.correct)
    count = run.correct.size
    proposals = run.proposals
    accepted = [p for p in proposals if p[3]]
    rejected = np.array([not p[3] for p in proposals])
    return {
        "accuracy": value,
        "low": low,
        "high": high,
        "failed": int(run.failed.sum()),
        "errors": run.errors,
        "mean_length": float(run.length.mean()),
        **{unit: _mean(run.cost[unit]) for unit in UNITS},
        "critical_steps": _complete(run.cost["critical_steps"], run.cost["calls"]),
        "peak_bytes": run.peak_bytes,
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
        "effects": {
            "wrong_to_right": sum(not p[4] and p[5] for p in accepted),
            "right_to_wrong": sum(p[4] and not p[5] for p in accepted),
            "wrong_to_wrong": sum(not p[4] and not p[5] for p in accepted),
            "right_to_right": sum(p[4] and p[5] for p in accepted),
        },
    }


def _comparisons(
    reference: str, cells: dict[str, Cell], labels: dict[str, Any]
) -> list[dict[str, Any]]:
    if reference not in cells:
        return []
    own = cells[reference].correct
    found = {
        method: compare(own, cell.correct, level=LEVEL)
        for method, cell in cells.items()
        if method != reference
    }
    adjusted = holm([c.p for c in found.values()])
    return [
        {**labels, "reference": reference, "method": method, **asdict(c), "p_holm": p}
        for (method, c), p in zip(found.items(), adjusted, strict=True)
    ]


def _reward(found: Array) -> dict[str, float | None]:
    """Mean over problems with a scored answer, seeds averaged within each, and its bootstrap interval."""
    scored = ~np.isnan(found).all(0)
    if not scored.any():
        return dict.fromkeys(("reward", "reward_low", "reward_high"))
    means = np.nanmean(found[:, scored], axis=0)
    low, high = bootstrap_difference(means, np.zeros_like(means), level=LEVEL)
    return {"reward": float(means.mean()), "reward_low": low, "reward_high": high}


def _pass(correct: Array) -> dict[str, float]:
    seeds, problems = correct.shape
    right = correct.sum(0)
    return {
        str(k): sum(pass_at_k(seeds, int(c), k) for c in right) / problems for k in range(1, seeds + 1)
    }


def _best(reward: Array, correct: Array) -> dict[str, float] | None:
    """Accuracy of the best of k runs by their reward; None where nothing was scored."""
    if np.isnan(reward).all():
        return None
    seeds, problems = correct.shape
    right = correct.astype(float)
    return {
        str(k): sum(best_of_k(reward[:, p], right[:, p], k) for p in range(problems)) / problems
        for k in range(1, seeds + 1)
    }


def _complete(values: Array, wanted: Array) -> float | None:
    """The mean; None where a journal of an earlier version holds some of the wanted ones without it."""
    return None if (np.isnan(values) & ~np.isnan(wanted)).any() else _mean(values)


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
