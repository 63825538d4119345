"""Token ids → the piece of text that each of them adds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

#: Control tokens of models whose answers have parts, thoughts and what is said, with a header each (gpt-oss).
CHANNELS = ("<|channel|>", "<|message|>")


def library(tokenizer: Any) -> Any:
    """What does the work behind one of transformers' fast tokenizers, where it may be asked directly: what
    transformers does around it takes several times as long as a short text. None for other classes, and for
    subclasses that add something of their own."""
    kind: Any = type(tokenizer)
    return tokenizer.backend_tokenizer if _direct(kind) else None


@cache
def _direct(kind: Any) -> bool:
    if "transformers" not in sys.modules:
        return False
    from transformers import PreTrainedTokenizerFast as Fast

    names = ("__call__", "_encode_plus", "decode", "_decode")
    own = all(getattr(kind, name, None) is getattr(Fast, name) for name in names)
    return own and not hasattr(kind, "_switch_to_input_mode")


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text, none added before or behind it."""
    core = library(tokenizer)
    if (
        core is None
        or core.truncation is not None  # transformers lifts these before it encodes
        or core.padding is not None
        or core.encode_special_tokens != tokenizer.split_special_tokens
    ):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids: list[int] = core.encode(text, add_special_tokens=False).ids
    return ids


def ids_text(tokenizer: Any, ids: Sequence[int], *, hide_controls: bool) -> str:
    """Text of ids as it is; control tokens are left out, or written by their names."""
    core = library(tokenizer)
    text: str
    if core is None:
        text = tokenizer.decode(
            list(ids), skip_special_tokens=hide_controls, clean_up_tokenization_spaces=False
        )
    else:
        text = core.decode(list(ids), skip_special_tokens=hide_controls)
    return text


class Decoder:
    """Ids → their text, all as it was written but for control tokens, which are left out. Where the tokenizer
    has control tokens for channels, these tell thoughts from what is said: then only those are left out that
    begin or end a text.

    Args:
        tokenizer: of the model.
        ends: end-of-sequence tokens besides the tokenizer's own.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        control = {str(token.content) for token in added.values() if token.special}
        own = (getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "bos", "pad"))
        #: Control tokens that are left out; None: all.
        self.hidden = {*ends, *own} if control.issuperset(CHANNELS) else None

    def __call__(self, ids: Sequence[int]) -> str:
        shown = list(ids) if self.hidden is None else [i for i in ids if i not in self.hidden]
        return ids_text(self.tokenizer, shown, hide_controls=self.hidden is None)


class Pieces:
    """Decodes one token at a time; the pieces joined are the decoded text.

    A token that is only part of a character (byte-level vocabularies) adds nothing until the character
    is whole.

    Args:
        tokenizer: of the model.
        window: tokens decoded together with the new one, so that spaces between words come out right.
        lead: tokens that stand before the first one, and are not shown.
        ends: see :class:`Decoder`.
    """

    def __init__(
        self, tokenizer: Any, window: int = 8, lead: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> None:
        self._decode, self._window = Decoder(tokenizer, ends), window
        self._tokens = list(lead)
        self._start, self._shown = 0, len(lead)

    def add(self, token: int) -> str:
        """The text that ``token`` adds; tokens that :class:`Decoder` leaves out add nothing."""
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


def pieces(
    tokenizer: Any, tokens: Sequence[int], lead: Sequence[int] = (), ends: Sequence[int] = ()
) -> list[str]:
    """One piece of text per token; joined they are the decoded text, behind that of ``lead``."""
    decoder = Pieces(tokenizer, lead=lead, ends=ends)
    found = [decoder.add(token) for token in tokens]
    if found:
        found[-1] += decoder.rest()
    return found


def token_text(tokenizer: Any, token: int) -> str:
    """One token for people: special ones by their name, white space visible."""
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text if text.isprintable() and text.strip() else repr(text)[1:-1] or " "
