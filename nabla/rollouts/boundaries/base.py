"""Step boundaries: where one step of a response ends and the next begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.registry import Registry

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary


class Boundary(ABC):
    """Cuts a response into steps; settings only."""

    @abstractmethod
    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        """Whether a step that consists of ``tokens`` (all since the last boundary, at least one) ends with
        the last of them.

        Asked once per written token of every row, so it must be cheap. An end-of-sequence token or the
        length limit ends a step anyway and is not asked about.
        """

    def first(self, tokens: Sequence[int], vocabulary: Vocabulary) -> int:
        """Length of the first step of a response: what was written behind it is not part of it."""
        ends = range(1, len(tokens))
        return next((end for end in ends if self.closed(tokens[:end], vocabulary)), len(tokens))

    def split(self, tokens: Sequence[int], vocabulary: Vocabulary) -> list[int]:
        """Ends (exclusive) of all steps of a response, ascending; the last step may be open."""
        return [*self._closed_ends(tokens[:-1], vocabulary), len(tokens)] if len(tokens) else []

    def _closed_ends(self, tokens: Sequence[int], vocabulary: Vocabulary) -> list[int]:
        ends: list[int] = []
        begin = 0
        for end in range(1, len(tokens) + 1):
            if self.closed(tokens[begin:end], vocabulary):
                ends.append(end)
                begin = end
        return ends

    def within(self, tokens: Sequence[int], vocabulary: Vocabulary) -> Boundary:
        """For what is written behind these tokens, wherever they end: the boundary that knows the step which
        they leave open."""
        begin = next(reversed(self._closed_ends(tokens, vocabulary)), 0)
        return _Within(self, tokens[begin:]) if begin < len(tokens) else self


class _Within(Boundary):
    """In the middle of a step: what has been written of it counts."""

    def __init__(self, boundary: Boundary, begun: Sequence[int]) -> None:
        self.boundary, self.begun = boundary, list(begun)

    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        return self.boundary.closed([*self.begun, *tokens], vocabulary)


boundaries: Registry[Boundary] = Registry("boundaries", lambda: Boundary, __package__)
