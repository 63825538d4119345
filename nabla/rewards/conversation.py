"""Rewards that read a whole conversation with a tokenizer and a chat template of their own."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError, VocabularyError
from nabla.core.prompt import Message
from nabla.models.chat import ChatFormat
from nabla.models.templates import PLAIN, RAW
from nabla.models.vocabulary import Alignment, Vocabulary, align
from nabla.rewards.base import Response, Reward, unbound
from nabla.rewards.reading import Layout, arrange, carried, regular
from nabla.rewards.seam import Seam, find_seam, written

log = logging.getLogger(__name__)

#: Layouts that are kept.
LATELY = 256


class ConversationReward(Reward):
    """A reward that reads the ids of a conversation in its own vocabulary; abstract: subclasses say how many
    ids it knows and make rewards of layouts (SPEC section 16).

    Args:
        tokenizer: of the reward.
        chat_template, special_tokens, minimum_coverage, missing, answer, bos: see
            :class:`~nabla.rewards.transformer.TransformerReward`.

    Raises ConfigError.
    """

    #: How a reward marks the steps of an answer; None where it leaves an answer as it is.
    marks: Any = None

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str | None,
        minimum_coverage: float,
        missing: Literal["forbid", "text", "error"],
        answer: Literal["template", "raw"],
        bos: bool | None,
        special_tokens: str | None,
    ) -> None:
        for name, value, known in (
            ("missing", missing, ("forbid", "text", "error")),
            ("answer", answer, ("template", "raw")),
        ):
            if value not in known:
                raise ConfigError(
                    f"Unknown {name} of a reward model", got=value, fix=f"Use {', '.join(known)}."
                )
        if bos and tokenizer.bos_token_id is None:
            raise ConfigError(
                "The reward model's tokenizer has no beginning-of-sequence token", got="bos=True"
            )
        self.missing, self.answer, self.bos = missing, answer, bos
        self.tokenizer = tokenizer
        self.chat = ChatFormat(
            tokenizer,
            chat_template,
            special_tokens="text" if special_tokens is None else special_tokens,
            role="reward model",
        )
        self._reads_controls_as_asked = special_tokens is not None
        self.minimum_coverage = minimum_coverage
        self.alignment: Alignment | None = None
        self.seam: Seam | None = None
        self._lm_tokenizer: Any = None
        self._eos: tuple[int, ...] = ()
        self._layouts: dict[Any, tuple[str, str, list[int], list[int]]] = {}
        self._lately: OrderedDict[Any, Layout] = OrderedDict()
        self._said: set[str] = set()

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of ids that it knows: rows of its embedding matrix."""

    @property
    @abstractmethod
    def context_length(self) -> int | None:
        """Most ids that it reads; None where there is no bound."""

    # -- vocabulary ------------------------------------------------------------------------------

    def bind(self, vocabulary: Vocabulary) -> ConversationReward:
        bound = copy.copy(self)
        bound.vocabulary = vocabulary
        bound._layouts, bound._lately, bound._said = {}, OrderedDict(), set()
        if not self._reads_controls_as_asked:  # one conversation, read in one way by both
            bound.chat = copy.copy(self.chat)
            bound.chat.special_tokens = vocabulary.chat.special_tokens
        bound._lm_tokenizer = vocabulary.tokenizer
        bound.alignment = align(
            vocabulary.tokenizer, self.tokenizer, minimum_coverage=self.minimum_coverage, rows=self.rows
        )
        index, usable = bound.alignment.index, vocabulary.usable
        bound._eos = vocabulary.eos_ids
        bound.unreadable = None
        if index is not None:
            known = index[:usable] >= 0
            known[[e for e in bound._eos if e < len(known)]] = True  # never read as part of an answer
            holes = torch.ones_like(known)  # ids that no token has are nobody's
            holes[[i for i in vocabulary.tokenizer.get_vocab().values() if i < len(known)]] = False
            missing = (~known & ~holes).nonzero()[:, 0]
            if len(missing):
                bound._say_missing(missing, bound.alignment.coverage)
            unreadable = (~known).nonzero()[:, 0]
            if len(unreadable) and self.missing == "forbid":
                bound.unreadable = unreadable
        bound.seam = find_seam(
            bound.chat,
            vocabulary.tokenizer,
            torch.arange(usable) if index is None else index[:usable],
            rows=self.rows,
            trims=self.answer == "template",
            lead=bound._lead,
        )
        return bound

    def _say_missing(self, missing: Int[Tensor, " n"], coverage: float) -> None:
        shown: list[str] = self._lm_tokenizer.convert_ids_to_tokens(missing[:8].tolist())
        names = ", ".join(map(repr, shown)) + (", ..." if len(missing) > 8 else "")
        if self.missing == "error":
            raise VocabularyError(
                f"The reward model lacks {len(missing)} of the language model's tokens",
                got=names,
                fix="Use missing='text' to read them as text, or missing='forbid' to forbid them.",
            )
        log.warning(
            "The reward model lacks %d of the language model's tokens (coverage %.2f %%): %s; %s",
            len(missing),
            100 * coverage,
            names,
            "they are forbidden (missing='text' reads them as text)"
            if self.missing == "forbid"
            else "they are read as text and have no reward gradient",
        )

    def _require_rows(self, ids: Sequence[int]) -> None:
        """Every id has an embedding; raises ModelError otherwise."""
        if ids and max(ids) >= self.rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ModelError(
                f"The reward model's embedding matrix has {self.rows} rows, its tokenizer writes {token!r}",
                got=max(ids),
                fix="Use the tokenizer that the model was trained with, or a template without that token.",
            )

    def _encode(self, text: str) -> list[int]:
        """Ids of a rendering, with or without a beginning-of-sequence token as configured."""
        ids: list[int] = self.chat.encode(text).tolist()
        first = self.tokenizer.bos_token_id
        if self.bos is False and ids and ids[0] == first:
            return ids[1:]
        return [int(first), *ids] if self.bos and ids[:1] != [first] else ids

    def _map(self, tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        assert self.alignment is not None
        index = self.alignment.index
        return tokens if index is None else index[tokens]

    # -- layouts ---------------------------------------------------------------------------------

    def layout(self, response: Response) -> Layout:
        """The response in this model's ids. Raises ConfigError before :meth:`bind`."""
        if self.alignment is None:
            raise unbound()
        # A text is scored, read and differentiated: it is rendered once.
        key = (response.prompt.messages, tuple(response.tokens.tolist()))
        if key not in self._lately:
            self._lately[key] = self._layout(response)
            if len(self._lately) > LATELY:
                self._lately.popitem(last=False)
        return self._lately[key]

    def _layout(self, response: Response) -> Layout:
        messages = self.chat.hide(response.prompt.messages)
        if messages not in self._layouts:
            if len(self._layouts) > 4096:
                self._layouts.clear()
            front, back = self.chat.surroundings(messages)
            self._layouts[messages] = (front, back, self._encode(front), self.chat.encode(back).tolist())
        after = self._layouts[messages][3]
        tokens = response.tokens.cpu()
        closing: list[int] = []
        if len(tokens) and int(tokens[-1]) in self._eos:
            end = int(self._map(tokens[-1:])[0])
            if after and after[0] == end:
                closing = [end]  # the answer's own end-of-turn token stands there
            tokens = tokens[:-1]
        layout = self._arranged(messages, tokens, closing)
        self._require_rows(layout.tokens.tolist())
        if bool((layout.places < 0).any()):
            self._say_once(
                "dropped",
                "In the reward model's reading of the whole conversation, some tokens of an answer have no "
                "id of their own (dropped, moved or merged by its template): they have no reward gradient",
            )
        limit = self.context_length
        if limit is not None and len(layout.tokens) > limit:
            raise ModelError(
                f"The reward model's context holds {limit} tokens",
                got=f"{len(layout.tokens)} tokens",
                fix="Lower max_new_tokens or use a reward model with a longer context.",
            )
        return layout

    def _arranged(
        self, messages: tuple[Message, ...], tokens: Int[Tensor, " n"], closing: list[int]
    ) -> Layout:
        """The layout of an answer without its end-of-sequence token, which ``closing`` has where the
        template's own stands for it."""
        front, back, before, after = self._layouts[messages]
        own = self._map(tokens).tolist()
        after = after[len(closing) :]
        if self.missing != "text" and self.marks is None and min(own, default=0) < 0:
            # Only a refinement on its way stands here: such a token is never written. It reads as nothing.
            ids = (torch.tensor(x, dtype=torch.long) for x in (before, own + closing, after))
            return regular(*ids)
        text = self._written(tokens.tolist())
        if self.chat.marked(text):  # nobody writes these characters; read as a control token's name
            raise ModelError("The answer holds private characters (U+E0F0, a number, U+E0F1)", got=text)

        @cache
        def render(answer: str) -> str:
            return (
                self.chat.finished(messages, answer) if self.answer == "template" else front + answer + back
            )

        whole, marks, ends = self._whole(render, text, tokens)

        def piece(row: int, token: int) -> str:
            if token < 0:
                return str(self._lm_tokenizer.convert_ids_to_tokens(int(tokens[row])))
            return str(self.tokenizer.convert_ids_to_tokens(token))

        fixed = {i for mark in marks or () for i in mark}
        layout, moved = arrange(own + closing, before, self._behind(after), whole, piece, fixed)
        places = layout.places.clone()
        places[self._structural(text, tokens)] = -1
        family = -1
        if len(own) and int(places[0]) >= 0:
            read = int(layout.answer[places[0]])
            # At the template's seam a token stands for the id that it makes there, or for none.
            apart = getattr(self.marks, "parts", False)  # steps encoded by themselves have no seam
            seam = None if apart and self.seam is not None and not self.seam.usual else self.seam
            if seam is not None and not apart and int(seam.ids[tokens[0]]) == read:
                family = int(seam.family[tokens[0]])
            if family < 0 and (seam is not None or read != own[0]):
                places[0] = -1
        if self.answer == "template" and own and render(text) != front + text + back:
            rows = [i for i in range(len(own)) if int(places[i]) >= 0]
            kept = carried(render, text, self._spans(tokens), rows)
            places[[i for i in rows if i not in kept]] = -1
        if bool((places != layout.places).any()) or family >= 0 or marks is not None:
            reads = None if marks is None else torch.tensor([moved[m[-1]] for m in marks], dtype=torch.long)
            layout = replace(
                layout, places=places, seam=family >= 0, family=family, reads=reads, ends=ends
            )
        return layout

    def _whole(
        self, render: Callable[[str], str], text: str, tokens: Int[Tensor, " n"]
    ) -> tuple[list[int], list[list[int]] | None, tuple[int, ...]]:
        """Ids of a finished conversation; where a reward has markers of its own, also the places of each
        one's ids in it, and the response token that ends each step."""
        return self._encode(render(text)), None, ()

    def _structural(self, text: str, tokens: Int[Tensor, " n"]) -> list[int]:
        """Tokens of an answer that decide how it is marked: they cannot be exchanged alone."""
        return []

    def _behind(self, after: list[int]) -> list[int]:
        """Of what the template writes behind an answer, what this reward lets stand there."""
        return after

    @property
    def _lead(self) -> tuple[int, ...]:
        """Where this model continues a text as the language model does, and no chat, an answer is what
        continues it: its first blank counts."""
        if self.vocabulary is None or self.chat.template not in (PLAIN, RAW):
            return ()
        return self.vocabulary.lead

    def _written(self, ids: list[int]) -> str:
        """Text of an answer's ids."""
        return written(self._lm_tokenizer, ids, self._lead)

    def _spans(self, tokens: Int[Tensor, " n"]) -> list[tuple[int, int]]:
        """Characters of each token in the answer's text."""
        ids = tokens.tolist()
        if not ids:
            return []
        text = self._written(ids)
        # Behind another token each has its own text, but for parts of a character: these need their context.
        start = len(self._written(ids[:1]))
        lengths = [start, *(len(self._written([ids[0], t])) - start for t in ids[1:])]
        if sum(lengths) != len(text):
            before = [len(self._written(ids[:i])) for i in range(len(ids) + 1)]
            return list(pairwise(before))
        ends = list(accumulate(lengths))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(message)
