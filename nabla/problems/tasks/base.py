"""The interface of a task: problems, their gold answers, and grading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry
from nabla.problems.answers.base import Answers


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Args:
        id: unique within the task, and the same in every run.
        prompt: the user's turn, the template filled in.
        gold: the right answer, as it is compared; for the sandbox one response that is right.
        metadata: whatever else the source says of the problem.
    """

    id: str
    prompt: str
    gold: str
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Task(ABC):
    """Problems and their grading; settings only, and what was read from a file."""

    #: How answers are extracted and compared, also for votes among responses.
    answers: Answers

    @property
    def name(self) -> str:
        """For tables and records."""
        return tasks.name_of(self)

    @abstractmethod
    def problems(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        """Problems of the task; the same arguments always give the same list.

        Args:
            n: how many (>= 1); None for all.
            seed: of the order they are taken in, so that a larger ``n`` contains a smaller one. None: in
                the source's own order.
            offset: how many to leave out at the start of that order.

        Raises ConfigError, also if there are fewer than ``offset + n``.
        """

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right; anything malformed is wrong, never an error."""
        answer = self.answers.extract(response)
        return answer is not None and self.answers.equal(problem.gold, answer)

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[bool]:
        """``grade`` of every (problem, response); a pair that repeats is graded once."""
        verdicts: dict[tuple[str, str, str], bool] = {}
        out: list[bool] = []
        for problem, response in pairs:
            key = (problem.prompt, problem.gold, response)
            if key not in verdicts:
                verdicts[key] = self.grade(problem, response)
            out.append(verdicts[key])
        return out


def check_range(n: int | None, offset: int) -> None:
    """Raises ConfigError unless ``n >= 1`` (or None) and ``offset >= 0``."""
    if n is not None and n < 1:
        raise ConfigError("The number of problems must be at least 1", got=n)
    if offset < 0:
        raise ConfigError("The offset must not be negative", got=offset)


tasks: Registry[Task] = Registry("tasks", lambda: Task, __package__)
