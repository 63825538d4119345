"""Steps of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.errors import require_positive
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary


@boundaries.register("length")
class Length(Boundary):
    """A step is a fixed number of tokens, whatever they say.

    Args:
        tokens: per step.
    """

    def __init__(self, tokens: int = 16) -> None:
        require_positive(tokens=tokens)
        self.tokens = tokens

    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        return len(tokens) >= self.tokens
