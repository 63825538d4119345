"""Solutions graded and written down."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from nabla.core.errors import NablaError
from nabla.core.solution import Revision, Solution
from nabla.problems.checker import Checker

log = logging.getLogger(__name__)


def correct(solution: Solution, task: Checker) -> bool:
    """Whether the task's checker accepts the response."""
    return task.check(solution.prompt.text, solution.response)


def graded(solution: Solution, task: Checker) -> bool | None:
    """The same; None where the task's own grader fails. That is said, and costs no solution."""
    try:
        return correct(solution, task)
    except NablaError as error:
        log.warning("%s", error)
        return None


def first_response(solution: Solution) -> str:
    """The response before any revision."""
    return solution.revisions[0].old_response if solution.revisions else solution.response


def effect(revision: Revision, solution: Solution, task: Checker) -> tuple[bool, bool]:
    """(right before, right after) of a proposal, by the checker, whatever its reward said."""
    prompt = solution.prompt.text
    return task.check(prompt, revision.old_response), task.check(prompt, revision.new_response)


def record(solution: Solution, task: Checker | None = None) -> dict[str, Any]:
    """A JSON-ready row: the solution, the caller's own fields, and the verdict where there is a checker."""
    row = solution.to_dict()
    for name in ("answer",):
        if name in solution.prompt.metadata:
            row[name] = solution.prompt.metadata[name]
    if task is not None:
        row["task"], row["correct"] = task.name, graded(solution, task)
    return row


def accepted_revisions(solutions: Iterable[Solution]) -> list[tuple[Solution, Revision]]:
    """Every accepted proposal with its solution."""
    return [(s, r) for s in solutions for r in s.revisions if r.accepted]
