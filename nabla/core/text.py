"""Token ids → the piece of text that each of them adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Pieces:
    """Decodes one token at a time; the pieces joined are the decoded text.

    A token that is only part of a character (byte-level vocabularies) adds nothing until the character
    is whole.

    Args:
        tokenizer: of the model.
        window: tokens decoded together with the new one, so that spaces between words come out right.
        lead: tokens that stand before the first one, and are not shown.
    """

    def __init__(self, tokenizer: Any, window: int = 8, lead: Sequence[int] = ()) -> None:
        self._tokenizer, self._window = tokenizer, window
        self._tokens = list(lead)
        self._start, self._shown = 0, len(lead)

    def add(self, token: int) -> str:
        """The text that ``token`` adds; special tokens add nothing."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._shown])
        text = self._decode(self._tokens[self._start :])
        if text.endswith("\ufffd"):
            return ""
        if len(self._tokens) - self._start > self._window:
            self._start = self._shown
        self._shown = len(self._tokens)
        return text[len(before) :]

    def rest(self) -> str:
        """What is held back at the end: a character that never became whole, as decoding shows it."""
        before = self._decode(self._tokens[self._start : self._shown])
        return self._decode(self._tokens[self._start :])[len(before) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def pieces(tokenizer: Any, tokens: Sequence[int], lead: Sequence[int] = ()) -> list[str]:
    """One piece of text per token; joined they are the decoded text, behind that of ``lead``."""
    decoder = Pieces(tokenizer, lead=lead)
    found = [decoder.add(token) for token in tokens]
    if found:
        found[-1] += decoder.rest()
    return found


def token_text(tokenizer: Any, token: int) -> str:
    """One token for people: special ones by their name, white space visible."""
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text if text.isprintable() and text.strip() else repr(text)[1:-1] or " "
