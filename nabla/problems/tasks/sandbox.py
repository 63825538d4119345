"""The sandbox's families as tasks, at any difficulty."""

from __future__ import annotations

from typing import cast, get_args

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers
from nabla.problems.answers.regex import RegexAnswers
from nabla.problems.answers.text import TextAnswers
from nabla.problems.sandbox.arithmetic import Arithmetic
from nabla.problems.sandbox.base import Family, Split
from nabla.problems.sandbox.latin import LatinSquare
from nabla.problems.tasks.base import Problem, Task, check_range, tasks


@tasks.register("sandbox")
class Sandbox(Task):
    """Latin squares or written-out arithmetic, drawn at random and graded by an exact checker.

    Args:
        family: ``latin`` or ``arithmetic``.
        min_clues: of a Latin square's 36 cells, at least so many are given; None for the family's 12.
        max_clues: at most so many; None for the family's 18. Fewer clues are harder.
        terms: numbers added or subtracted in arithmetic, 1 to 6; None for the family's 3.
        max_factor: largest first factor, 10 to 99; None for the family's 99.
        split: ``test`` or ``train``; the two are disjoint for all seeds.

    Raises ConfigError, also for an argument of the other family.
    """

    def __init__(
        self,
        family: str = "latin",
        min_clues: int | None = None,
        max_clues: int | None = None,
        terms: int | None = None,
        max_factor: int | None = None,
        split: str = "test",
    ) -> None:
        latin = {"min_clues": min_clues, "max_clues": max_clues}
        arithmetic = {"terms": terms, "max_factor": max_factor}
        if family not in ("latin", "arithmetic"):
            raise ConfigError("Unknown family of the sandbox", got=family, fix="Use latin or arithmetic.")
        if split not in get_args(Split):
            raise ConfigError("Unknown split", got=split, fix="Use test or train.")
        own, other = (latin, arithmetic) if family == "latin" else (arithmetic, latin)
        foreign = {key: value for key, value in other.items() if value is not None}
        if foreign:
            raise ConfigError(
                f"The family {family} has no such argument", got=foreign, fix=f"Arguments: {', '.join(own)}."
            )
        given = {key: value for key, value in own.items() if value is not None}
        self.family, self.split = family, cast(Split, split)
        self.checker: Family = LatinSquare(**given) if family == "latin" else Arithmetic(**given)
        self.min_clues: int | None = getattr(self.checker, "min_clues", None)
        self.max_clues: int | None = getattr(self.checker, "max_clues", None)
        self.terms: int | None = getattr(self.checker, "terms", None)
        self.max_factor: int | None = getattr(self.checker, "max_factor", None)
        #: For votes: the square itself, or the result after "#". Grading asks the checker.
        self.answers: Answers = TextAnswers() if family == "latin" else RegexAnswers(r"#([0-9]+)")

    @property
    def name(self) -> str:
        return self.family

    def problems(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        """As the interface says; the supply is endless, so ``n`` is needed, and no seed is seed 0."""
        check_range(n, offset)
        if n is None:
            raise ConfigError("Sandbox problems are drawn, not listed", got=n, fix="Say how many: n=500.")
        return self.checker.problems(self.split, offset + n, seed or 0)[offset:]

    def grade(self, problem: Problem, response: str) -> bool:
        return self.checker.check(problem.prompt, response)
