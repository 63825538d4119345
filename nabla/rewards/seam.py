"""An answer's first token, where it makes one id with what the chat template writes before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.models.chat import ChatFormat
from nabla.rewards.probe import QUESTION

#: Of a text before an answer, how many characters can merge with the answer's first token.
_SEAM = 16


@dataclass(frozen=True, eq=False)
class Seam:
    """The reward model's ids for the language model's tokens as an answer's first one.

    Args:
        ids: of each token, -1 where there is none.
        merged: whether it is one that the token makes with the template's text before it (a blank).
    """

    ids: Int[Tensor, " usable"]
    merged: Bool[Tensor, " usable"]


def find_seam(
    chat: ChatFormat, lm_tokenizer: Any, standard: Int[Tensor, " usable"], *, rows: int, trims: bool
) -> Seam | None:
    """The seam; None where template and tokenizer make none.

    Args:
        chat: of the reward model.
        lm_tokenizer: of the language model.
        standard: the reward model's id of each token elsewhere, -1 where it has none.
        rows: of the reward model's embedding matrix.
        trims: the template writes the answer, and may trim its beginning.
    """
    messages = (Message("user", QUESTION),)
    try:
        tail = chat.surroundings(messages)[0][-_SEAM:]
    except ModelError:
        return None
    strip = ""
    if trims:
        plain = chat.finished(messages, "x")
        strip = "".join(c for c in " \n" if chat.finished(messages, c + "x") == plain)
    ids = sorted(i for i in lm_tokenizer.get_vocab().values() if i < len(standard))
    special = set(getattr(lm_tokenizer, "all_special_ids", ()))

    def together(chosen: list[int]) -> list[tuple[int, list[int]]]:
        texts = {i: written(lm_tokenizer, [i]) for i in chosen if i not in special and int(standard[i]) >= 0}
        # Parts of a character have no text of their own, and what is trimmed away no token.
        kept = {i: t.lstrip(strip) for i, t in texts.items() if "\ufffd" not in t and t.lstrip(strip)}
        if not kept:
            return []
        encoded = chat.tokenizer([tail + t for t in kept.values()], add_special_tokens=False)["input_ids"]
        return list(zip(kept, encoded, strict=True))

    # Tokens that merge with the template's text come in families with one beginning (words without a
    # blank of their own, words with one); a few others are cut in their own ways.
    sample = together(ids[:: max(1, len(ids) // 256)])
    counts = Counter(tuple(row[:-1]) for i, row in sample if row and row[-1] != int(standard[i]))
    families = {family for family, count in counts.items() if count >= 0.05 * len(sample)}
    if not families:
        return None
    found = Seam(standard.clone(), torch.zeros(len(standard), dtype=torch.bool))
    for i, row in together(ids):
        if tuple(row[:-1]) in families and row[-1] < rows:
            found.ids[i] = row[-1]
            found.merged[i] = True
    return found


def written(lm_tokenizer: Any, tokens: list[int]) -> str:
    """Text of the language model's tokens, control tokens by their names."""
    text: str = lm_tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
