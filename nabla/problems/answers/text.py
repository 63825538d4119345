"""The response itself as the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nabla.problems.answers.base import Answers, answers


@answers.register("text")
@dataclass(frozen=True)
class TextAnswers(Answers):
    """The response without surrounding white space; equal answers are the same string."""

    def extract(self, response: str) -> str | None:
        return response.strip() or None

    def equal(self, left: str, right: str) -> bool:
        return left == right

    def groups(self, responses: Sequence[str]) -> list[int | None]:
        numbers: dict[str, int] = {}
        found = (self.extract(response) for response in responses)
        return [None if answer is None else numbers.setdefault(answer, len(numbers)) for answer in found]
