"""The interface of answer extraction and comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from nabla.registry import Registry


class Answers(ABC):
    """Finds the answer in a response and compares answers; settings only.

    Neither method raises for any text a model may write: what cannot be read is None or unequal.
    """

    @abstractmethod
    def extract(self, response: str) -> str | None:
        """The final answer of a response, or None if there is none."""

    @abstractmethod
    def equal(self, left: str, right: str) -> bool:
        """Whether two answers (or an answer and the gold one, which goes left) mean the same."""

    def groups(self, responses: Sequence[str]) -> list[int | None]:
        """A group number per response, equal for equal answers, in order of first appearance; None
        for responses without an answer."""
        found: list[tuple[str, int]] = []
        numbers: list[int | None] = []
        for response in responses:
            answer = self.extract(response)
            if answer is None:
                numbers.append(None)
                continue
            number = next((n for other, n in found if other == answer or self.equal(other, answer)), None)
            if number is None:
                number = len({n for _, n in found})
            found.append((answer, number))
            numbers.append(number)
        return numbers


answers: Registry[Answers] = Registry("answers", lambda: Answers)
