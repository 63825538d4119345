"""The interface of answer extraction and comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from nabla.core.registry import Registry


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
        for responses without an answer. An answer joins the first group whose first answer it equals."""
        known: dict[str, int] = {}
        firsts: list[str] = []  # one answer per group, to compare with
        numbers: list[int | None] = []
        for response in responses:
            answer = self.extract(response)
            if answer is None:
                numbers.append(None)
                continue
            if answer not in known:
                same = (n for n, first in enumerate(firsts) if self.equal(first, answer))
                known[answer] = next(same, len(firsts))
                if known[answer] == len(firsts):
                    firsts.append(answer)
            numbers.append(known[answer])
        return numbers


answers: Registry[Answers] = Registry("answers", lambda: Answers, __package__)
