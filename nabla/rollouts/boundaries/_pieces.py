"""Texts of single tokens, decoded once per vocabulary entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM

#: What tokenizers write for a token that is only part of a character.
PARTIAL = "\ufffd"

_known: WeakKeyDictionary[CausalLM, dict[int, str]] = WeakKeyDictionary()


def pieces(tokens: Sequence[int], lm: CausalLM) -> list[str]:
    """The text of each token inside a longer text; empty for special tokens."""
    known = _known.get(lm)
    if known is None:
        known = _known[lm] = {}
    try:
        return [known[token] for token in tokens]
    except KeyError:
        for token in tokens:
            if token not in known:
                # Twice, because some tokenizers drop the space before a text's first word.
                known[token] = lm.decode([token, token])[len(lm.decode([token])) :]
        return [known[token] for token in tokens]
