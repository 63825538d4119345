"""Solutions to disk and to standard output, as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nabla.core.errors import NablaError
from nabla.core.files import json_line
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Callback
from nabla.launch.folder import RunFolder
from nabla.launch.records import record
from nabla.problems.checker import Checker


class Recorder(Callback):
    """One JSON object per solution.

    Args:
        folder: appended to ``solutions.jsonl`` and ``failures.jsonl`` there; None keeps nothing.
        task: whose checker grades.
        emit: takes the same line, for standard output.
        name: file name of the solutions.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        task: Checker | None = None,
        emit: Callable[[str], None] | None = None,
        name: str = "solutions.jsonl",
    ) -> None:
        self.folder, self.task, self.emit, self.name = folder, task, emit, name
        self._seen: set[str] = set()

    def complete(self, solutions: Sequence[Solution]) -> None:
        """Adds what other processes solved."""
        for solution in solutions:
            if solution.prompt.id not in self._seen:
                self.on_solution(solution)

    def on_solution(self, solution: Solution) -> None:
        self._seen.add(solution.prompt.id)
        row = record(solution, self.task)
        if self.folder is not None:
            self.folder.append(self.name, row)
        if self.emit is not None:
            self.emit(json_line(row))

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        if self.folder is not None:
            row = {"id": prompt.id, "error": type(error).__name__, "message": str(error)}
            self.folder.append("failures.jsonl", row)
