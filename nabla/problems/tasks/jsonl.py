"""The user's own problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nabla.problems.answers.base import Answers
from nabla.problems.tasks.base import Problem, tasks
from nabla.problems.tasks.listed import ListedTask, build_answers, checked_template, distinct
from nabla.problems.tasks.rows import read_jsonl

_ANSWER = "answer"


@tasks.register("jsonl")
class JSONL(ListedTask):
    """A file with one JSON object per line, each a problem and its answer; or no line has one, and
    the answers of methods are measured otherwise (an evaluation's ``metric``).

    Args:
        path: of the file.
        prompt_field: the problem's text.
        answer_field: the gold answer, a text or a number. A name of your own must be there; of the usual one
            the problems may all do without.
        id_field: a name for each problem; None: numbers them in order, from 0.
        template: the user's turn, with ``{problem}`` where the problem goes.
        answers: how answers are extracted and compared.
    """

    def __init__(
        self,
        path: str,
        prompt_field: str = "prompt",
        answer_field: str = _ANSWER,
        id_field: str | None = None,
        template: str = "{problem}",
        answers: Answers | str | dict[str, Any] = "math",
    ) -> None:
        self.path, self.id_field = path, id_field
        self.prompt_field, self.answer_field = prompt_field, answer_field
        self.template = checked_template(template)
        self.answers = build_answers(answers)

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def read(self) -> list[Problem]:
        fields = {self.prompt_field, self.answer_field, self.id_field}
        found, lines = [], read_jsonl(self.path)
        graded = self.answer_field != _ANSWER or any(_ANSWER in row.fields for row in lines)
        for number, row in enumerate(lines):
            problem = Problem(
                id=str(number) if self.id_field is None else row.text((self.id_field,), "id"),
                prompt=self.fill(row.text((self.prompt_field,), "prompt")),
                gold=row.text((self.answer_field,), "answer") if graded else None,
                metadata={name: value for name, value in row.fields.items() if name not in fields},
            )
            found.append((row, problem))
        return distinct(found)
