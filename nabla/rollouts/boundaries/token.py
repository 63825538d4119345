"""Steps that end with given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from nabla.core.errors import ConfigError
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.models.vocabulary import Vocabulary

_known: WeakKeyDictionary[Vocabulary, dict[tuple[int | str, ...], frozenset[int]]] = WeakKeyDictionary()


@boundaries.register("token")
class Token(Boundary):
    """A step ends with any of the given tokens; the cheapest boundary.

    Args:
        tokens: ids, or texts that are one token each: vocabulary entries as they are, other texts as the
            tokenizer encodes them. ConfigError at the first use for a text of several tokens.
    """

    def __init__(self, tokens: Sequence[int | str]) -> None:
        if isinstance(tokens, str) or not tokens:
            raise ConfigError("A token boundary needs a list of tokens", got=tokens, fix="Pass ['\\n'], say.")
        self.tokens = tuple(tokens)

    def closed(self, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
        return tokens[-1] in _ids(self.tokens, vocabulary)


def _ids(tokens: tuple[int | str, ...], vocabulary: Vocabulary) -> frozenset[int]:
    known = _known.get(vocabulary)
    if known is None:
        known = _known[vocabulary] = {}
    if tokens not in known:
        known[tokens] = frozenset(_id(token, vocabulary) for token in tokens)
    return known[tokens]


def _id(token: int | str, vocabulary: Vocabulary) -> int:
    if isinstance(token, int):
        if not 0 <= token < vocabulary.usable:
            raise ConfigError(
                "The language model has no such token", got=token, fix=f"Ids are 0..{vocabulary.usable - 1}."
            )
        return token
    entry = vocabulary.tokenizer.get_vocab().get(token)
    if entry is not None:
        return int(entry)
    ids: list[int] = vocabulary.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == vocabulary.tokenizer.unk_token_id:
        raise ConfigError(
            "The text is not one token of the language model",
            got=token,
            fix="Use boundary 'regex' for texts of several tokens.",
        )
    return ids[0]
