"""What decides the results of an evaluation: configuration, problems, models, packages and plug-ins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nabla.launch.fingerprint import digest, model, surroundings
from nabla.problems.tasks.base import Problem
from nabla.study.evaluation.config import EvaluationConfig


def fingerprint(config: EvaluationConfig, problems: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
    """Everything that two runs must have in common to be one run, as plain data.

    Args:
        config: of the evaluation.
        problems: by task, as chosen.
    """
    resolved = config.resolved()
    return {
        "config": resolved,
        "problems": {
            task: digest([(p.id, p.prompt, p.gold) for p in chosen]) for task, chosen in problems.items()
        },
        "models": {
            f"{label}.{name}": model(path, arguments)
            for label, setup in config.tasks.items()
            for name, (path, arguments) in setup.paths().items()
        },
        **surroundings(resolved),
    }
