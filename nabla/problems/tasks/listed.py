"""Tasks whose problems stand in a list."""

from __future__ import annotations

import random
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers, answers
from nabla.problems.tasks.base import Problem, Task, check_range
from nabla.problems.tasks.rows import Row, read_dataset, read_jsonl

#: The place of the problem's text in a template.
PLACE = "{problem}"

#: What the answer extraction looks for first.
BOXED = PLACE + "\n\nPlease reason step by step, and put your final answer within \\boxed{}."


class ListedTask(Task):
    """A task that reads all its problems once, when they are first asked for."""

    template: str

    @abstractmethod
    def read(self) -> list[Problem]:
        """All problems in the source's order. Raises ConfigError."""

    @cached_property
    def _all(self) -> list[Problem]:
        return self.read()

    def problems(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        check_range(n, offset)
        found = list(self._all)
        if offset + (n or 1) > len(found):
            asked = "some" if n is None else n
            raise ConfigError(
                f"{self.name} has {len(found)} problems",
                got=f"{asked} after the first {offset}" if offset else n,
                fix=f"Ask for at most {max(len(found) - offset, 0)}.",
            )
        if seed is not None:
            random.Random(f"{self.name}:{seed}").shuffle(found)
        return found[offset:] if n is None else found[offset : offset + n]

    def fill(self, problem: str) -> str:
        """The template with the problem's text in its place."""
        return self.template.replace(PLACE, problem)


class Benchmark(ListedTask):
    """A published benchmark, from a local JSONL file or through the library ``datasets``.

    Args:
        path: of the local file; None loads the dataset.
        dataset: hub id or folder; None for the benchmark's own.
        subset: configuration of the dataset; None for the benchmark's own.
        split: of the dataset; None for the benchmark's own.
        template: the user's turn, with ``{problem}`` where the problem goes; None asks for a boxed answer.
        answers: how answers are extracted and compared.
    """

    #: Where the benchmark is published: dataset, subset, split.
    source: ClassVar[tuple[str, str | None, str]]
    #: Names of the fields; of several, the first that a record has.
    id_fields: ClassVar[tuple[str, ...]] = ("id",)
    prompt_fields: ClassVar[tuple[str, ...]] = ("problem", "question")

    def __init__(
        self,
        path: str | None = None,
        dataset: str | None = None,
        subset: str | None = None,
        split: str | None = None,
        template: str | None = None,
        answers: Answers | str | dict[str, Any] = "math",
    ) -> None:
        own, own_subset, own_split = self.source
        self.path = path
        self.dataset = own if dataset is None else dataset
        self.subset = own_subset if subset is None and dataset is None else subset
        self.split = own_split if split is None else split
        self.template = checked_template(BOXED if template is None else template)
        self.answers = build_answers(answers)

    def gold(self, row: Row) -> str:
        """The right answer of a record. Raises ConfigError."""
        return row.text(("answer",), "answer")

    def read(self) -> list[Problem]:
        if self.path is not None:
            rows = read_jsonl(self.path)
        else:
            rows = read_dataset(self.dataset, self.subset, self.split)
        used = {*self.id_fields, *self.prompt_fields, "answer"}
        found: list[tuple[Row, Problem]] = []
        for number, row in enumerate(rows):
            has_id = any(name in row.fields for name in self.id_fields)
            key = row.text(self.id_fields, "id") if has_id else str(number)
            problem = Problem(
                id=f"{self.name}-{key}",
                prompt=self.fill(row.text(self.prompt_fields, "problem")),
                gold=self.gold(row),
                metadata={name: value for name, value in row.fields.items() if name not in used},
            )
            found.append((row, problem))
        return distinct(found)


def build_answers(spec: Answers | str | dict[str, Any]) -> Answers:
    """The answers component of a spec."""
    return answers.build(spec)


def checked_template(template: str) -> str:
    """The template. Raises ConfigError if the problem has no place in it."""
    if PLACE not in template:
        raise ConfigError("The template has no place for the problem", got=template, fix=f"Put {PLACE} in.")
    return template


def distinct(found: list[tuple[Row, Problem]]) -> list[Problem]:
    """The problems. Raises ConfigError if two have one id."""
    places: dict[str, str] = {}
    for row, problem in found:
        if problem.id in places:
            raise ConfigError(
                f"Two problems have one id: {places[problem.id]} and {row.place}",
                got=problem.id,
                fix="Results are kept by id; give each problem its own.",
            )
        places[problem.id] = row.place
    return [problem for _, problem in found]
