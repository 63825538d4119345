"""Solutions to disk as they finish, and to standard output in the order of the prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from nabla.core.errors import NablaError
from nabla.core.files import json_line
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Callback
from nabla.launch.records import record
from nabla.problems.checker import Checker


class InOrder:
    """Lines in the order of their ids, each as soon as those before it are out.

    Args:
        ids: all of them.
        emit: takes a line.
    """

    def __init__(self, ids: Sequence[str], emit: Callable[[str], None]) -> None:
        self._waiting = list(reversed(ids))
        self._lines: dict[str, str | None] = {}
        self._emit = emit

    def add(self, key: str, text: str | None) -> None:
        """The line of an id; None for one that will have none."""
        self._lines[key] = text
        while self._waiting and self._waiting[-1] in self._lines:
            self._out(self._waiting.pop())

    def close(self) -> None:
        """Whatever is left goes out, without what is missing."""
        for key in reversed(self._waiting):
            self._out(key)
        self._waiting = []

    def _out(self, key: str) -> None:
        text = self._lines.pop(key, None)
        if text is not None:
            self._emit(text)


@runtime_checkable
class Rows(Protocol):
    """Where rows are kept."""

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One line of ``name``."""


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
        folder: Rows | None,
        task: Checker | None = None,
        emit: InOrder | None = None,
        name: str = "solutions.jsonl",
    ) -> None:
        self.folder, self.task, self.emit, self.name = folder, task, emit, name
        self._kept: set[str] = set()
        self._done: set[str] = set()

    def complete(self, solutions: Sequence[Solution], failures: Mapping[str, NablaError]) -> None:
        """Adds what other processes solved and failed at (id → error), and what a signal has broken off;
        lets every line out."""
        for solution in solutions:
            if solution.prompt.id not in self._done:
                self.on_solution(solution)
        for key, error in failures.items():
            if key not in self._done:
                self._failed(key, error)
        if self.emit is not None:
            self.emit.close()

    def on_solution(self, solution: Solution) -> None:
        key, row = solution.prompt.id, record(solution, self.task)
        self._keep(key, self.name, row)
        if self.emit is not None:
            self.emit.add(key, json_line(row))
        self._done.add(key)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._failed(prompt.id, error)

    def _failed(self, key: str, error: NablaError) -> None:
        row = {"id": key, "error": type(error).__name__, "message": str(error)}
        self._keep(key, "failures.jsonl", row)
        if self.emit is not None:
            self.emit.add(key, None)
        self._done.add(key)

    def _keep(self, key: str, name: str, row: Mapping[str, Any]) -> None:
        """Once: the folder has a row from here on, whatever breaks its writing off."""
        if self.folder is not None and key not in self._kept:
            self._kept.add(key)
            self.folder.append(name, row)
