"""A small ablation with the shipped models, and made-up results."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.study.ablation.config import AblationConfig
from nabla.study.ablation.results import Outcome, PointResult, Study

VALUES: dict[str, Any] = {
    "base": {
        "tasks": {
            "squares": {
                "task": {"name": "sandbox", "family": "latin"},
                "lm": "sandbox:latin-policy",
                "rewards": {"good": "sandbox:latin-reward", "bad": "sandbox:latin-reward-poor"},
            },
        },
        "method": {
            "name": "nabla-reasoner",
            "dto": {"steps": 2},
            "sampling": {"temperature": 0.7, "max_new_tokens": 48},
            "max_rollouts": 3,
        },
        "problems": 3,
        "shard": 2,
        "accelerator": "cpu",
        "quick": {"problems": 1},
    },
    "factors": {"method": ["nabla-reasoner", "revision"], "method.proposal": ["sample", "argmax"]},
}


def values(**changes: Any) -> dict[str, Any]:
    """Of the small ablation, its own copy; None takes a key away."""
    found = {**copy.deepcopy(VALUES), **changes}
    return {key: value for key, value in found.items() if value is not None}


def small(**changes: Any) -> AblationConfig:
    """The small ablation with some values changed."""
    return AblationConfig.of(values(**changes))


def study(rates: dict[tuple[str, ...], float], *, problems: int = 400, seed: int = 0) -> Study:
    """Results in which the point at some levels solves each problem with a known probability, dependent on
    the problem's difficulty, which all points share."""
    noise = np.random.default_rng(seed)
    hard = noise.uniform(-0.2, 0.2, problems)
    names = [f"f{i}" for i in range(len(next(iter(rates))))]
    points = []
    for levels, rate in rates.items():
        correct = noise.uniform(size=(1, problems)) < rate + hard
        cost = {unit: np.full((1, problems), 2.0 if "b" in levels else 1.0) for unit in UNITS}
        outcome = Outcome({None: correct}, cost, np.where(correct, "right", "wrong").astype(object))
        points.append(PointResult(", ".join(levels), dict(zip(names, levels, strict=True)), {"t": outcome}))
    factors = {name: list(dict.fromkeys(levels[i] for levels in rates)) for i, name in enumerate(names)}
    return Study(factors, points, ["t"], [None])
