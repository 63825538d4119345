"""A small evaluation with the shipped models: seconds, not minutes."""

from __future__ import annotations

from typing import Any

from nabla.study.evaluation.config import EvaluationConfig

VALUES: dict[str, Any] = {
    "tasks": {
        "squares": {
            "task": {"name": "sandbox", "family": "latin"},
            "lm": "sandbox:latin-policy",
            "rewards": {
                "outcome": "sandbox:latin-reward",
                "process": {"name": "process", "path": "sandbox:latin-process-reward"},
            },
        },
    },
    "shared": {"sampling": {"temperature": 0.7, "max_new_tokens": 48}},
    "methods": {
        "greedy": {"name": "greedy", "max_new_tokens": 48, "rm": None},
        "best": {"name": "best-of-n", "n": 2},
    },
    "budgets": {"calls": [50, 100]},
    "problems": 4,
    "seeds": [0, 1],
    "shard": 2,
    "accelerator": "cpu",
}


def small(**changes: Any) -> EvaluationConfig:
    """The small evaluation with some values changed."""
    return EvaluationConfig.of({**VALUES, **changes})
