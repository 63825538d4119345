"""An answer's first token, where it makes one id with what the chat template writes before it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.core.text import ids_text
from nabla.models.channels import TableChannel, TablePull
from nabla.models.chat import ChatFormat
from nabla.models.head import EmbeddingTable
from nabla.rewards.probe import QUESTION

#: Of a text before an answer, how many characters can merge with the answer's first token.
_SEAM = 16

#: White space that a template may trim from an answer's beginning.
_BLANKS = " \n\t\r\v\f\u00a0\u2028\u3000"

#: Of tokens that look alike, how many are tried before the others are taken to do as they do.
_TRIED = 8

#: Characters of two, three and four bytes.
_CHARACTERS = "é日🙂"

#: Stands for what users ask.
_ASKED = QUESTION + " Yes"

#: Seams by the reward model's tokenizer, the language model's, and what else decides them.
_FOUND: WeakKeyDictionary[Any, WeakKeyDictionary[Any, dict[object, Seam | None]]] = WeakKeyDictionary()

#: Texts encoded at a time.
_BATCH = 8192


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
        usual: merging is what many tokens do there; otherwise only a few do (a line break behind the
            template's).
    """

    ids: Int[Tensor, " usable"]
    family: Int[Tensor, " usable"]
    families: int
    usual: bool

    def table(self, embedding: nn.Module, family: int) -> SeamTable:
        """Embeddings of a family's tokens, one number wider: 1 for the tokens that are not in it, which stand
        for the id that the text has."""
        own = self.family == family
        module = _Widened(embedding)
        return SeamTable(module, len(self.ids), torch.where(own, self.ids, module.rows))


class SeamTable(EmbeddingTable):
    """A table that only an answer's first token enters: other rows have no gradient there, and cost none."""

    def products(
        self, vectors: Float[Tensor, "n hidden"], candidates: Int[Tensor, "*n_or_not k"] | None = None
    ) -> Float[Tensor, "n k"]:
        live = (vectors != 0).any(-1).nonzero()[:, 0].to(vectors.device)
        each = candidates is not None and candidates.dim() > 1
        chosen = candidates[live.to(candidates.device)] if candidates is not None and each else candidates
        found = super().products(vectors[live], chosen)
        rows = found.new_zeros(len(vectors), found.shape[-1])
        return rows.index_copy(0, live.to(rows.device), found)


@dataclass(frozen=True, eq=False)
class SeamPull(TablePull):
    """The gradient at an answer's first token."""

    def flops(self, rows: int, width: int) -> float:
        return super().flops(min(rows, int((self.vectors != 0).any(-1).sum())), width)


@dataclass(frozen=True, eq=False)
class SeamChannel(TableChannel):
    """Where an answer's first token enters."""

    def pull(self, slope: Float[Tensor, "n hidden"]) -> SeamPull:
        return SeamPull(slope, self.table)


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
    """The seam; None where every token keeps its id behind the template's text.

    Args:
        chat: of the reward model.
        lm_tokenizer: of the language model.
        standard: the reward model's id of each token elsewhere, -1 where it has none.
        rows: of the reward model's embedding matrix.
        trims: the template writes the answer, and may trim its beginning.
        lead: see :func:`written`.
    """
    # A word at the question's end, which merges with nothing of the template's.
    messages = (Message("user", _ASKED),)
    try:
        tail = chat.surroundings(messages)[0]
    except ModelError:
        return None
    if tail.endswith(_ASKED):  # what is before an answer is each question's own end
        return None
    tail, strip = tail[-_SEAM:], ""
    if trims:
        plain = chat.finished(messages, "x")
        strip = "".join(c for c in _BLANKS if chat.finished(messages, c + "x") == plain)
    known_seams = _FOUND.setdefault(chat.tokenizer, WeakKeyDictionary()).setdefault(lm_tokenizer, {})
    key = (tail, strip, tuple(lead), rows, len(standard), len(chat.tokenizer), len(lm_tokenizer))
    if key not in known_seams:
        known_seams[key] = _compared(_Reader(chat.tokenizer, tail), strip, lm_tokenizer, standard, rows, lead)
    return known_seams[key]


def _compared(
    reader: _Reader,
    strip: str,
    lm_tokenizer: Any,
    standard: Int[Tensor, " usable"],
    rows: int,
    lead: Sequence[int],
) -> Seam | None:
    """The seam behind a template's text; ``strip`` is trimmed from an answer's beginning."""
    own: list[int] = standard.tolist()
    size = len(own)
    known = sorted(i for i in lm_tokenizer.get_vocab().values() if i < size and own[i] >= 0)
    texts = dict(zip(known, _texts(lm_tokenizer, known, lead), strict=True))
    whole = texts
    if strip:
        texts = {i: t.lstrip(strip) for i, t in texts.items()}
    base = reader.base
    parts = {i: t.split("\ufffd")[0] for i, t in texts.items() if "\ufffd" in t}
    # Of tokens that make other ids than their own, these; none for what is trimmed away.
    made: dict[int, tuple[int, ...]] = {i: () for i, t in texts.items() if not t}
    left = {i: t for i, t in texts.items() if t and i not in parts}
    for trimmed in (False, True) if strip else (False,):
        made |= _merged(reader, {i: t for i, t in left.items() if (t != whole[i]) == trimmed}, own)
    # Parts of a character have no text of their own: they merge where a whole one would.
    fronts = sorted(set(parts.values()))
    tried = reader.rows([front + c for front in fronts for c in _CHARACTERS])
    firm = [row[: len(base)] == base for row in tried]
    width = len(_CHARACTERS)
    apart = {front: all(firm[k * width : (k + 1) * width]) for k, front in enumerate(fronts)}
    made |= {i: () for i, front in parts.items() if not apart[front]}
    if not made:
        return None
    # Tokens that merge with the template's text come in families with one beginning (words without a
    # blank of their own, words with one); where only a few merge, all the others are one family.
    counts = Counter(row[:-1] for i, row in made.items() if row and row[-1] != own[i])
    common = [family for family, count in counts.items() if count >= 0.05 * len(texts)]
    families = {family: number for number, family in enumerate(common or [base])}
    ids, family = list(own), [-1] * size
    for i in known if base in families else ():
        family[i] = families[base]
    for i, row in made.items():
        member = bool(row) and row[:-1] in families and row[-1] < rows
        family[i] = families[row[:-1]] if member else -1
        ids[i] = row[-1] if member else own[i]
    return Seam(torch.tensor(ids), torch.tensor(family), len(families), bool(common))


def _merged(reader: _Reader, texts: dict[int, str], own: list[int]) -> dict[int, tuple[int, ...]]:
    """Ids that a token's text makes together with the template's, of all tokens for which these are not the
    template's and its own. Tokens that look alike are cut alike: where none of those that are tried merges,
    the others do not either."""
    if not texts:
        return {}
    alike: dict[str, list[int]] = {}
    for i, text in texts.items():
        alike.setdefault(_look(text), []).append(i)
    few = _TRIED if reader.local else len(texts)
    tried = {key: group[:: max(1, len(group) // few)] for key, group in alike.items()}
    first = [i for group in tried.values() for i in group]
    seen = dict(zip(first, reader.rows([texts[i] for i in first]), strict=True))
    reader.shorten({texts[group[0]]: seen[group[0]] for group in tried.values()})
    base = reader.base
    todo = []
    for key, group in alike.items():
        if any(seen[i] != (*base, own[i]) for i in tried[key]):
            todo += [i for i in group if i not in seen]
    different = list(dict.fromkeys(texts[i] for i in todo))
    found = dict(zip(different, reader.rows(different), strict=True))
    seen |= {i: found[texts[i]] for i in todo}
    # A token that its text would not make keeps its id in a reading that has the same pieces.
    return {i: r for i, r in seen.items() if r != (*base, own[i]) and not reader.same(r, own[i])}


def _look(text: str) -> str:
    """What decides how a text is cut from another before it: its first blanks, and what comes then."""
    if text.isascii() and text.isalpha():
        return "Lu" if text[0] < "a" else "Ll"
    rest = text.lstrip()
    kinds = [c if c.isascii() and not c.isalnum() else unicodedata.category(c) for c in rest[:2]]
    forms = () if text.isascii() else (f for f in ("NFC", "NFKC") if not unicodedata.is_normalized(f, text))
    return "".join((text[: len(text) - len(rest)], *kinds, *forms))


class _Reader:
    """Encodes texts behind the end of a template's.

    Args:
        tokenizer: of the reward model.
        tail: the end of what the template writes before an answer.
    """

    def __init__(self, tokenizer: Any, tail: str) -> None:
        self._tokenizer, self._tail = tokenizer, tail
        self._head: tuple[int, ...] = ()
        core = getattr(tokenizer, "backend_tokenizer", None)
        #: Texts are split into words, from their characters, before anything merges.
        self.local = core is not None and "ByteLevel" in str(core.pre_tokenizer)
        self._cut = 0
        self.base = next(self._encoded([tail]))

    def rows(self, texts: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """Ids of each text with the tail before it."""
        found = self._encoded([self._tail + text for text in texts])
        return (self._head + row[self._cut :] for row in found) if self._head or self._cut else found

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[int, ...]]:
        core = getattr(self._tokenizer, "backend_tokenizer", None)
        for start in range(0, len(texts), _BATCH):
            part = list(texts[start : start + _BATCH])
            if core is None:
                yield from map(tuple, self._tokenizer(part, add_special_tokens=False)["input_ids"])
            else:  # without the other lists that transformers makes of each text
                yield from (tuple(e.ids) for e in core.encode_batch(part, add_special_tokens=False))

    def shorten(self, known: dict[str, tuple[int, ...]]) -> None:
        """Takes the shortest end of the tail that makes the same of texts whose ids are known."""
        tail = self._tail
        for length in range(1, len(tail)):
            found = dict(zip(known, self._encoded([tail[-length:] + t for t in known]), strict=True))
            for cut in (0, 1):
                heads = set()
                for text, row in known.items():
                    rest = found[text][cut:]
                    same = bool(rest) and row[len(row) - len(rest) :] == rest
                    heads.add(row[: len(row) - len(rest)] if same else None)
                    if len(heads) > 1 or not same:
                        break
                else:
                    (head,) = heads
                    assert head is not None
                    self._tail, self._head, self._cut = tail[-length:], head, cut
                    return

    def same(self, row: tuple[int, ...], token: int) -> bool:
        """Whether a token's own pieces follow the template's ids, only cut in another way."""
        count = len(self.base)
        if row[:count] != self.base or len(row) < count + 2:
            return False
        pieces: list[str] = self._tokenizer.convert_ids_to_tokens(list(row[count:]))
        return "".join(pieces) == str(self._tokenizer.convert_ids_to_tokens(token))


def _texts(lm_tokenizer: Any, ids: list[int], lead: Sequence[int]) -> list[str]:
    """Text of each token, as :func:`written` gives it."""
    from transformers import PreTrainedTokenizerFast

    core = getattr(lm_tokenizer, "backend_tokenizer", None)
    if core is None or type(lm_tokenizer)._decode is not PreTrainedTokenizerFast._decode:
        return [written(lm_tokenizer, [i], lead) for i in ids]
    start = len(core.decode(list(lead), skip_special_tokens=False)) if lead else 0
    rows = core.decode_batch([[*lead, i] for i in ids], skip_special_tokens=False)
    return [row[start:] for row in rows]


def written(lm_tokenizer: Any, tokens: list[int], lead: Sequence[int] = ()) -> str:
    """Text of the language model's tokens, control tokens by their names, behind that of ``lead``, which is
    cut off."""

    def text(ids: Sequence[int]) -> str:
        return ids_text(lm_tokenizer, ids, hide_controls=False)

    return text([*lead, *tokens])[len(text(lead)) :] if lead else text(tokens)
