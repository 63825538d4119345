"""Steps that end with a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.errors import ConfigError
from nabla.rollouts.boundaries._pieces import PARTIAL, pieces
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary


@boundaries.register("regex")
class Regex(Boundary):
    r"""A step ends as soon as its text ends with a match of ``pattern``.

    The pattern sees the text of this step alone. Flags are written as groups, ``(?i:...)``.

    Args:
        pattern: of :mod:`re`, e.g. ``[/;]`` or ``\nStep \d+:``; it must not match the empty text.
    """

    def __init__(self, pattern: str = r"\n") -> None:
        try:
            self._ending = re.compile(rf"(?:{pattern})\Z")
        except re.error as error:
            raise ConfigError(
                f"The pattern is no regular expression: {error}",
                got=pattern,
                fix="Write it as for Python's re module; flags as groups, (?i:...).",
            ) from error
        if self._ending.search(""):
            raise ConfigError(
                "The pattern matches the empty text, so that it would end a step at every token",
                got=pattern,
                fix="Use boundary 'length' with tokens=1 if that is meant.",
            )
        self.pattern = pattern

    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        text = "".join(pieces(tokens, vocabulary))
        if PARTIAL in text:  # only together are such tokens characters
            text = vocabulary.decode(list(tokens))
        return self._ending.search(text) is not None
