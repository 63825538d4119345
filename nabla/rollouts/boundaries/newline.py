"""Steps that are lines or paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.errors import require_positive
from nabla.rollouts.boundaries._pieces import pieces
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary


@boundaries.register("newline")
class Newline(Boundary):
    """A step ends where a text ends in ``count`` line breaks; blank lines before a text are part of it.

    Args:
        count: 1 makes a step of every line, 2 of every paragraph.
    """

    def __init__(self, count: int = 1) -> None:
        require_positive(count=count)
        self.count = count

    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        if "\n" not in pieces(tokens[-1:], vocabulary)[0]:
            return False
        breaks = 0
        for text in reversed(pieces(tokens, vocabulary)):
            content = text.rstrip()
            breaks += text.count("\n", len(content))
            if content:
                return breaks >= self.count
        return False
