"""An answer's first token, where it makes one id with what the chat template writes before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.models.chat import ChatFormat
from nabla.models.head import EmbeddingTable
from nabla.rewards.probe import QUESTION

#: Of a text before an answer, how many characters can merge with the answer's first token.
_SEAM = 16


@dataclass(frozen=True, eq=False)
class Seam:
    """The reward model's ids for the language model's tokens as an answer's first one.

    Tokens that make equally many ids there, the same but for the last one, are a family (words without a
    blank of their own, words with one): exchanging one for another exchanges one id. Any other exchange
    changes the number of ids.

    Args:
        ids: of each token, -1 where there is none.
        family: of each token, -1 where it is in none.
        families: how many there are.
    """

    ids: Int[Tensor, " usable"]
    family: Int[Tensor, " usable"]
    families: int

    def table(self, embedding: nn.Module, family: int) -> EmbeddingTable:
        """Embeddings of a family's tokens, one number wider: 1 for the tokens that are not in it, which stand
        for the id that the text has."""
        own = self.family == family
        module = _Widened(embedding)
        return EmbeddingTable(module, len(self.ids), torch.where(own, self.ids, module.rows))


class _Widened(nn.Module):
    """An embedding with one number more, 0; and with one row more, of which that number, 1, is all."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.rows = int(next(embedding.parameters()).shape[0])

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        last = (ids == self.rows).unsqueeze(-1)
        rows = self.embedding(ids.clamp_max(self.rows - 1)).masked_fill(last, 0.0)
        return torch.cat([rows, last.to(rows)], -1)


def find_seam(
    chat: ChatFormat,
    lm_tokenizer: Any,
    standard: Int[Tensor, " usable"],
    *,
    rows: int,
    trims: bool,
    lead: Sequence[int] = (),
) -> Seam | None:
    """The seam; None where template and tokenizer make none.

    Args:
        chat: of the reward model.
        lm_tokenizer: of the language model.
        standard: the reward model's id of each token elsewhere, -1 where it has none.
        rows: of the reward model's embedding matrix.
        trims: the template writes the answer, and may trim its beginning.
        lead: see :func:`written`.
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
        known = [i for i in chosen if i not in special and int(standard[i]) >= 0]
        texts = {i: written(lm_tokenizer, [i], lead) for i in known}
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
    common = [family for family, count in counts.items() if count >= 0.05 * len(sample)]
    if not common:
        return None
    families = {family: number for number, family in enumerate(common)}
    found = Seam(standard.clone(), torch.full_like(standard, -1), len(families))
    for i, row in together(ids):
        if tuple(row[:-1]) in families and row[-1] < rows:
            found.ids[i] = row[-1]
            found.family[i] = families[tuple(row[:-1])]
    return found


def written(lm_tokenizer: Any, tokens: list[int], lead: Sequence[int] = ()) -> str:
    """Text of the language model's tokens, control tokens by their names, behind that of ``lead``, which is
    cut off."""

    def text(ids: Sequence[int]) -> str:
        found: str = lm_tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return found

    return text([*lead, *tokens])[len(text(lead)) :] if lead else text(tokens)
