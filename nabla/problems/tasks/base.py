"""The interface of a task: problems, their gold answers, and grading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from nabla.core.errors import ComponentError, ConfigError, NablaError, require_count
from nabla.core.registry import Registry
from nabla.problems.answers.base import Answers
from nabla.problems.problem import Problem

__all__ = ["Problem", "Task", "check_range", "tasks"]


class Task(ABC):
    """Problems and their grading; settings only, and what was read from a file."""

    #: How answers are extracted and compared, also for votes among responses; None for a task with a grader
    #: of its own.
    answers: Answers | None = None

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

    def chosen(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        """:meth:`problems`, checked: what runs calls this.

        Raises ComponentError where the task fails, and ConfigError where it gives anything but a list of
        problems with an id and a prompt.
        """
        try:
            found: Any = self.problems(n, seed=seed, offset=offset)
        except NablaError:
            raise
        except (Exception, SystemExit) as error:
            raise ComponentError.of(error, f"Reading the problems of the task {self.name!r}") from error
        if not isinstance(found, list | tuple):  # a generator may have no end
            raise ConfigError(
                f"problems() of the task {self.name!r} must return a list", got=type(found).__name__
            )
        for problem in found:
            if not isinstance(problem, Problem) or not all(
                isinstance(text, str) for text in (problem.id, problem.prompt)
            ):
                raise ConfigError(
                    f"problems() of the task {self.name!r} must return problems: Problem(id, prompt, gold), "
                    "id and prompt texts",
                    got=problem,
                )
        return list(found)

    def verdicts(self, pairs: Sequence[tuple[Problem, str]]) -> list[bool]:
        """:meth:`grade_all`, checked: what runs calls this. Raises ComponentError where the grader fails,
        and ConfigError where it gives anything but True or False for each."""
        try:
            found: Any = self.grade_all(pairs)
        except NablaError:
            raise
        except (Exception, SystemExit) as error:
            problems = ", ".join(dict.fromkeys(problem.id for problem, _ in pairs))
            raise ComponentError(
                f"The grader of the task {self.name!r} failed with {type(error).__name__}: {error}",
                got=f"problem {problems}",
                fix="grade(problem, response) says True or False of any text; mend it and run again: what "
                "was finished is kept.",
            ) from error
        # numpy's bool is none: json does not write it.
        if not isinstance(found, list | tuple) or len(found) != len(pairs) or set(map(type, found)) - {bool}:
            raise ConfigError(
                f"The grader of the task {self.name!r} must say True or False of each response", got=found
            )
        return list(found)

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right; anything malformed is wrong, never an error.

        By the gold answer, where the task says how answers are compared; a task of another kind overrides
        this. Raises ConfigError for a task that does neither.
        """
        if self.answers is None or problem.gold is None:
            raise ConfigError(
                f"The task {self.name!r} cannot tell right from wrong",
                got=problem.id,
                fix="Give the task 'answers' and its problems a gold answer, or override grade(problem, "
                "response).",
            )
        answer = self.answers.extract(response)
        return answer is not None and self.answers.equal(problem.gold, answer)

    def score(self, problem: Problem, response: str) -> float | None:  # noqa: ARG002 - of others
        """A partial score, 0 to 1, of a task whose grader gives one: kept beside right and wrong. None:
        there is none."""
        return None

    def grades(self, problems: Sequence[Problem]) -> bool:
        """Whether right can be told from wrong: the task has a grader of its own, or says how answers are
        compared and every problem has a gold answer."""
        own = type(self).grade is not Task.grade or type(self).grade_all is not Task.grade_all
        return own or (self.answers is not None and all(p.gold is not None for p in problems))

    def require_grades(self, problems: Sequence[Problem], fix: str = "") -> None:
        """Raises ConfigError for problems that cannot be graded; ``fix`` is another way out."""
        if not self.grades(problems):
            lacking = next((p.id for p in problems if p.gold is None), None)
            raise ConfigError(
                f"The task {self.name!r} has no gold answers: right cannot be told from wrong",
                got=None if lacking is None else f"problem {lacking!r} without one",
                fix=f"Give every problem its answer{fix}.",
            )

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[bool]:
        """``grade`` of every (problem, response); a pair that repeats is graded once."""
        verdicts: dict[tuple[str, str | None, str], bool] = {}
        out: list[bool] = []
        for problem, response in pairs:
            key = (problem.prompt, problem.gold, response)
            if key not in verdicts:
                verdicts[key] = self.grade(problem, response)
            out.append(verdicts[key])
        return out


def check_range(n: int | None, offset: int) -> None:
    """Raises ConfigError unless ``n >= 1`` (or None) and ``offset >= 0``."""
    if n is not None:
        require_count("The number of problems", n, minimum=1)
    if isinstance(offset, int) and offset < 0:
        raise ConfigError("The offset must not be negative", got=offset)
    require_count("The offset", offset)


tasks: Registry[Task] = Registry("tasks", lambda: Task, __package__)


class TaskChecker:
    """Grades responses by the problem they answer: a task as ``solve`` and ``compare`` use it.

    Args:
        task: grades.
        problems: what was asked.

    Raises ConfigError for problems without gold answers, unless the task has a grader of its own.
    """

    def __init__(self, task: Task, problems: Sequence[Problem]) -> None:
        task.require_grades(problems)
        self.task, self.name = task, task.name
        self._problems = {problem.prompt: problem for problem in problems}

    def check(self, prompt: str, response: str) -> bool:
        """Whether the response to a problem's text is right."""
        return self.task.verdicts([(self._problems[prompt], response)])[0]

    def render(self, prompt: str, response: str) -> str:
        """For people: the verdict, and the gold answer where there is one."""
        right = self.check(prompt, response)
        gold = self._problems[prompt].gold
        known = "" if gold is None or right else f", expected {gold}"
        return f"{'right' if right else 'wrong'}{known}"
