"""The units of work of an evaluation, in their canonical order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nabla.problems.tasks.base import Problem
from nabla.study.evaluation.config import EvaluationConfig


@dataclass(frozen=True)
class Unit:
    """Problems of one task that one method solves together under one seed: the smallest amount of work
    that is done or not done.

    Args:
        task, method: labels of the configuration.
        seed: of the run.
        shard: which part of the problems.
        problems: the part.
    """

    task: str
    method: str
    seed: int
    shard: int
    problems: tuple[Problem, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Names the unit in a journal."""
        return self.task, self.method, self.seed, self.shard


def plan(config: EvaluationConfig, problems: Mapping[str, Sequence[Problem]]) -> list[Unit]:
    """All units: by task, method, seed, then problems in their order."""
    return [
        Unit(task, method, seed, start // config.shard, tuple(chosen[start : start + config.shard]))
        for task, chosen in problems.items()
        for method in config.methods
        if config.runs(method, task)
        for seed in config.seeds
        for start in range(0, len(chosen), config.shard)
    ]
