"""Texts of single tokens, decoded once per vocabulary entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary

#: What tokenizers write for a token that is only part of a character.
PARTIAL = "\ufffd"

_known: WeakKeyDictionary[Vocabulary, dict[int, str]] = WeakKeyDictionary()


def pieces(tokens: Sequence[int], vocabulary: Vocabulary) -> list[str]:
    """The text of each token inside a longer text; empty for special tokens."""
    known = _known.get(vocabulary)
    if known is None:
        known = _known[vocabulary] = {}
    try:
        return [known[token] for token in tokens]
    except KeyError:
        for token in tokens:
            if token not in known:
                # Twice, because some tokenizers drop the space before a text's first word.
                known[token] = vocabulary.decode([token, token])[len(vocabulary.decode([token])) :]
        return [known[token] for token in tokens]
