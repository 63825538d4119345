"""What outcome and process reward models over transformers share."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError, NablaError, VocabularyError
from nabla.core.prompt import Message
from nabla.core.trajectory import Score
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.causal_lm import check_close, verify_prefix_reuse
from nabla.models.causality import require_causal
from nabla.models.channels import Channel, TableChannel
from nabla.models.chat import ChatFormat
from nabla.models.head import EmbeddingTable
from nabla.models.loading import freeze, load, reason, unwrap
from nabla.models.runner import Runner
from nabla.models.vocabulary import Alignment, Vocabulary, align
from nabla.rewards.base import RelaxedResponse, RelaxedReward, Response, Reward, unbound
from nabla.rewards.reading import Layout, arrange, carried, regular

log = logging.getLogger(__name__)


#: Read at load, as a conversation with its answer.
_QUESTION, _ANSWER = "1+2=", "3"
#: Of a text before an answer, how many characters can merge with the answer's first token.
_SEAM = 16


class TransformerReward(Reward):
    """A transformers model as reward; abstract: subclasses say how hidden states become a reward.

    Args:
        model: with a ``score`` (or ``classifier``) head over a decoder, PEFT-wrapped or not.
        tokenizer: of the model.
        chat_template, special_tokens: see :class:`~nabla.models.chat.ChatFormat`. Control tokens that the
            language model wrote in an answer are control tokens in any case.
        minimum_coverage: smallest share of the language model's tokens that must be known
            (:func:`nabla.models.vocabulary.align`).
        missing: what becomes of the language model's tokens that this model lacks: ``forbid`` them to the
            language model, read their ``text`` (for scores; they have no reward gradient), or an ``error``.
        answer: ``template``: read an answer as the chat template writes it (which may trim it, or strip its
            thinking); ``raw``: as it is, within what the template writes around an answer.
        bos: False: without the beginning-of-sequence token that the template writes; True: with one.
        reuse_prefix: cache keys and values of prefixes.

    Raises ModelError if the model is not one whose score is a head over the states of a causal decoder, by
    a probe of a finished conversation against transformers' own forward pass.
    """

    #: The class of transformers that loads such a model, by name: it is imported when one is loaded.
    auto: ClassVar[str]
    #: How a reward marks the steps of an answer; None where it leaves an answer as it is.
    marks: Any = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        minimum_coverage: float = 0.9,
        missing: Literal["forbid", "text", "error"] = "forbid",
        answer: Literal["template", "raw"] = "template",
        bos: bool | None = None,
        special_tokens: str = "text",
        reuse_prefix: bool = True,
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
        self.model = freeze(unwrap(model))
        self.tokenizer = tokenizer
        self.chat = ChatFormat(
            tokenizer, chat_template, special_tokens=special_tokens, role="reward model"
        )
        self.minimum_coverage = minimum_coverage
        self.body = Body(self.model.base_model, self.model.config, reuse_prefix=reuse_prefix)
        self.head: Any = self._head()
        self.alignment: Alignment | None = None
        self.table: EmbeddingTable | None = None
        self.seam_table: EmbeddingTable | None = None
        self._merged: Tensor | None = None
        self._lm_tokenizer: Any = None
        self._eos: tuple[int, ...] = ()
        self._layouts: dict[Any, tuple[str, str, list[int], list[int]]] = {}
        self._said: set[str] = set()
        try:
            self._verify()
        except NablaError:
            raise
        except Exception as error:
            raise ModelError(
                f"The reward model {type(self.model).__name__} cannot be run by nabla: "
                f"{type(error).__name__}: {reason(error)}",
                fix="Use a reward model whose score is a head over the states of a causal decoder "
                "(docs/models.md).",
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        chat_template: str | None = None,
        minimum_coverage: float = 0.9,
        missing: Literal["forbid", "text", "error"] = "forbid",
        answer: Literal["template", "raw"] = "template",
        bos: bool | None = None,
        special_tokens: str = "text",
        reuse_prefix: bool = True,
        settings: Mapping[str, Any] | None = None,
        auto: Any = None,
        **arguments: Any,
    ) -> TransformerReward:
        """From a folder or hub id; ``arguments`` are :func:`nabla.models.loading.load`'s, ``settings`` a
        subclass's own, ``auto`` another class to load. Raises ModelError."""
        import transformers

        auto = getattr(transformers, cls.auto) if auto is None else auto
        model, tokenizer = load(auto, str(path), role="reward model", **arguments)
        return cls(
            model,
            tokenizer,
            chat_template=chat_template,
            minimum_coverage=minimum_coverage,
            missing=missing,
            answer=answer,
            bos=bos,
            special_tokens=special_tokens,
            reuse_prefix=reuse_prefix,
            **(settings or {}),
        )

    # -- the model -----------------------------------------------------------------------------

    @property
    def config_pad(self) -> int | None:
        """Padding id, at which transformers' sequence classifiers stop reading."""
        pad: int | None = self.model.config.get_text_config().pad_token_id
        return pad

    @abstractmethod
    def _expected(self, ids: Int[Tensor, " n"]) -> Tensor:
        """What transformers' own forward says of one sequence."""

    def _head(self) -> Any:
        """What turns hidden states into scores; None where the model has nothing of that kind."""
        return getattr(self.model, "score", getattr(self.model, "classifier", None))

    @property
    def rows(self) -> int:
        """Of the embedding matrix."""
        return int(next(self.body.embedding.parameters()).shape[0])

    @torch.no_grad()
    def _verify(self) -> None:
        """Body and head must give what the model gives for a finished conversation, with padding behind it
        too; raises ModelError otherwise."""
        name = type(self.model).__name__
        if self.head is None:
            raise ModelError(
                f"{name} has no 'score' or 'classifier' head over a decoder",
                fix="Use a decoder reward model (Qwen, Llama, Mistral, Gemma, GPT-NeoX, ... "
                "ForSequenceClassification or ForTokenClassification).",
            )
        messages = (Message("user", _QUESTION),)
        self._compare_renderings(messages)
        rendered = self._encode(self.chat.finished(messages, _ANSWER))
        self._require_rows(rendered)
        limit = self.body.context_length
        ids = torch.tensor(rendered[: limit or None])
        pad = self.config_pad
        require_causal(self.body, _long(self.body, ids), name)
        padded = ids if pad is None else torch.cat([ids, torch.tensor([pad, pad])])[: limit or None]
        for row in (ids, padded):
            read = row[: self._stop(row)]
            (output,) = self.body.run([Chunk(EMPTY, self.body.embed(read))])
            check_close(self._read(output.hidden), self._expected(row), "its scores", name)
        probe = torch.tensor([i for i in range(min(10, self.rows)) if i != pad][::-1])
        verify_prefix_reuse(self.body, probe)

    def _compare_renderings(self, messages: tuple[Message, ...]) -> None:
        """What a template does to a question and before an answer: a missing question is an error, another
        beginning of the answer is said."""
        before, _ = self.chat.surroundings(messages)
        if _QUESTION not in before:
            raise ModelError(
                "The reward model's chat template does not write the question",
                got=before[-80:],
                fix="Pass a chat_template that writes what the user says.",
            )
        prompt = self.chat.generation(messages)
        if not before.startswith(prompt) or before != prompt:
            log.warning(
                "The reward model's template begins an answer of a finished conversation in another way (%r) "
                "than one that is to be written (%r): answers are read as in a finished conversation",
                before[-40:],
                prompt[-40:],
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

    def _stop(self, tokens: Int[Tensor, " n"]) -> int:
        """Number of leading tokens that the reward reads."""
        return len(tokens)

    @abstractmethod
    def _read(self, hidden: Float[Tensor, "n hidden"]) -> Tensor:
        """Raw scores from hidden states of one sequence, as in ``_expected``."""

    @abstractmethod
    def _reward(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, ""]:
        """The reward from the hidden states of the last ``n`` tokens of a layout."""

    def _judge(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Score:
        """The reward as a score; with its steps where it has any."""
        return Score(float(self._reward(hidden, layout)))

    #: Number of response tokens, from the first, whose hidden states ``_reward`` needs in any case.
    reads_whole_response: ClassVar[bool]

    # -- vocabulary and layout -------------------------------------------------------------------

    def bind(self, vocabulary: Vocabulary) -> TransformerReward:
        bound = copy.copy(self)
        bound.vocabulary = vocabulary
        bound.body, bound._layouts, bound._said = copy.copy(self.body), {}, set()
        bound._lm_tokenizer = vocabulary.tokenizer
        bound.alignment = align(
            vocabulary.tokenizer, self.tokenizer, minimum_coverage=self.minimum_coverage, rows=self.rows
        )
        index, usable = bound.alignment.index, vocabulary.usable
        bound._eos = vocabulary.eos_ids
        own = None if index is None else index[:usable]
        bound.table = EmbeddingTable(self.body.embedding, usable, own)
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
        seam = bound._seam(usable)
        bound.seam_table = None
        if seam is not None:
            bound.seam_table = EmbeddingTable(self.body.embedding, usable, seam[0])
            bound._merged = seam[1]
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

    def _seam(self, usable: int) -> tuple[Int[Tensor, " usable"], Bool[Tensor, " usable"]] | None:
        """This model's id for each of the language model's tokens as an answer's first one, and whether it is
        one that it makes with what the template writes before it (a blank); None where templates and
        tokenizer make none."""
        messages = (Message("user", _QUESTION),)
        try:
            tail = self.chat.surroundings(messages)[0][-_SEAM:]
        except ModelError:
            return None
        strip = ""
        if self.answer == "template":
            plain = self.chat.finished(messages, "x")
            strip = "".join(c for c in " \n" if self.chat.finished(messages, c + "x") == plain)
        assert self.alignment is not None
        index = self.alignment.index
        ids = sorted(i for i in self._lm_tokenizer.get_vocab().values() if i < usable)
        standard = torch.arange(usable) if index is None else index[:usable].clone()

        special = set(getattr(self._lm_tokenizer, "all_special_ids", ()))

        def together(chosen: list[int]) -> list[tuple[int, list[int]]]:
            texts = {i: self._lm_text([i]) for i in chosen if i not in special and int(standard[i]) >= 0}
            # Parts of a character have no text of their own, and what is trimmed away no token.
            kept = {i: t.lstrip(strip) for i, t in texts.items() if "\ufffd" not in t and t.lstrip(strip)}
            if not kept:
                return []
            rows = self.tokenizer([tail + t for t in kept.values()], add_special_tokens=False)["input_ids"]
            return list(zip(kept, rows, strict=True))

        # Tokens that merge with the template's text come in families with one beginning (words without a
        # blank of their own, words with one); a few others are cut in their own ways.
        sample = together(ids[:: max(1, len(ids) // 256)])
        counts = Counter(tuple(row[:-1]) for i, row in sample if row and row[-1] != int(standard[i]))
        families = {family for family, count in counts.items() if count >= 0.05 * len(sample)}
        if not families:
            return None
        merged = torch.zeros(usable, dtype=torch.bool)
        for i, row in together(ids):
            if tuple(row[:-1]) in families and row[-1] < self.rows:
                standard[i] = row[-1]
                merged[i] = True
        return standard, merged

    def _lm_text(self, tokens: list[int]) -> str:
        """Text of the language model's tokens, control tokens by their names."""
        text: str = self._lm_tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _map(self, tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        assert self.alignment is not None
        index = self.alignment.index
        return tokens if index is None else index[tokens]

    def layout(self, response: Response) -> Layout:
        """The response in this model's ids. Raises ConfigError before :meth:`bind`."""
        if self.alignment is None:
            raise unbound()
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
        limit = self.body.context_length
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
        text = self._lm_text(tokens.tolist())
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
        seam = False
        if len(own) and int(places[0]) >= 0:
            read = int(layout.answer[places[0]])
            table = None if self.seam_table is None else self.seam_table.index
            # At the template's seam a token stands for the id that it makes there, or for none.
            if table is not None and self._merged is not None:
                seam = bool(self._merged[tokens[0]]) and int(table[tokens[0]]) == read
            if not seam and read != own[0]:
                places[0] = -1
        if self.answer == "template" and own and render(text) != front + text + back:
            rows = [i for i in range(len(own)) if int(places[i]) >= 0]
            kept = carried(render, text, self._spans(tokens), rows)
            places[[i for i in rows if i not in kept]] = -1
        if bool((places != layout.places).any()) or seam or marks is not None:
            reads = None if marks is None else torch.tensor([moved[m[-1]] for m in marks], dtype=torch.long)
            layout = replace(layout, places=places, seam=seam, reads=reads, ends=ends)
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

    def _spans(self, tokens: Int[Tensor, " n"]) -> list[tuple[int, int]]:
        """Characters of each token in the answer's text."""
        ids = tokens.tolist()
        if not ids:
            return []
        text = self._lm_text(ids)
        # Behind another token each has its own text, but for parts of a character: these need their context.
        start = len(self._lm_text(ids[:1]))
        lengths = [start, *(len(self._lm_text([ids[0], t])) - start for t in ids[1:])]
        if sum(lengths) != len(text):
            before = [len(self._lm_text(ids[:i])) for i in range(len(ids) + 1)]
            return list(pairwise(before))
        ends = list(accumulate(lengths))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(message)

    def _embed(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n hidden"]:
        """Embeddings of this model's ids; zero for a token that it lacks."""
        rows = self.body.embed(ids.clamp_min(0))
        lacking = (ids < 0).to(rows.device).unsqueeze(-1)
        return rows.masked_fill(lacking, 0.0) if bool(lacking.any()) else rows

    # -- rewards ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        layouts = [self.layout(response) for response in responses]
        accounts = [response.account for response in responses]
        tokens = [row[: self._stop(row)] for row in (layout.tokens for layout in layouts)]
        if self.reads_whole_response:
            cut = [layout.first_read for layout in layouts]
            prefixes = runner.prefixes(self.body, [t[:n] for t, n in zip(tokens, cut, strict=True)], accounts)
            chunks = [
                Chunk(prefix, self.body.embed(row[n:]))
                for prefix, row, n in zip(prefixes, tokens, cut, strict=True)
            ]
        else:
            chunks = runner.suffixes(self.body, tokens, accounts)
        outputs = runner.forward(self.body, chunks, accounts, keep=True)
        for account, row, output in zip(accounts, tokens, outputs, strict=True):
            runner.store.put(account.problem, self.body, row, output.keys)
        return [self._judge(output.hidden, layout) for output, layout in zip(outputs, layouts, strict=True)]

    @property
    def differentiable(self) -> bool:
        return True

    def bodies(self) -> tuple[Body, ...]:
        return (self.body,)

    def channels(self) -> tuple[Channel, ...]:
        table = TableChannel(self._bound_table())
        return (table,) if self.seam_table is None else (table, TableChannel(self.seam_table))

    def _bound_table(self) -> EmbeddingTable:
        if self.table is None:
            raise unbound()
        return self.table

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        tables = [self._bound_table()] + ([] if self.seam_table is None else [self.seam_table])
        layouts = [self.layout(item.response) for item in responses]
        accounts = [item.response.account for item in responses]
        tokens = [row[: self._stop(row)] for row in (layout.tokens for layout in layouts)]
        # Free response tokens that are read, and where.
        free = [
            [
                (i, len(layout.before) + place)
                for i, place in enumerate(layout.places.tolist())
                if i >= item.start and place >= 0 and len(layout.before) + place < len(row)
            ]
            for item, layout, row in zip(responses, layouts, tokens, strict=True)
        ]
        # Where a reward reads every step, the frozen part of the answer is run again with the rest.
        firsts = [
            layout.first_read if self.reads_whole_response else min([at for _, at in pairs] + [len(row) - 1])
            for layout, pairs, row in zip(layouts, free, tokens, strict=True)
        ]
        prefixes = runner.prefixes(
            self.body, [row[:n] for row, n in zip(tokens, firsts, strict=True)], accounts
        )
        leaves, chunks = [], []
        for item, layout, prefix, row, pairs in zip(responses, layouts, prefixes, tokens, free, strict=True):
            own = [item.embeddings(table).detach().requires_grad_() for table in tables]
            embedded = self._embed(row[len(prefix) :])
            for leaf, at_seam in zip(own, (False, True), strict=False):
                chosen = [(i, at) for i, at in pairs if (layout.seam and i == 0) == at_seam]
                if chosen or not at_seam:
                    rows = torch.tensor([i - item.start for i, _ in chosen], dtype=torch.long)
                    at = torch.tensor([at - len(prefix) for _, at in chosen], dtype=torch.long)
                    device = embedded.device
                    embedded = embedded.index_copy(0, at.to(device), leaf[rows.to(leaf.device)].to(embedded))
            leaves.append(tuple(own))
            chunks.append(Chunk(prefix, embedded))
        with torch.enable_grad():
            outputs = runner.forward(self.body, chunks, accounts)
            return [
                RelaxedReward(self._reward(output.hidden, layout), leaf, ((self.body, chunk),))
                for output, layout, leaf, chunk in zip(outputs, layouts, leaves, chunks, strict=True)
            ]


def _long(body: Body, ids: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """A text that is repeated until it is longer than the model's windows."""
    limit = body.context_length or 512
    windows = [getattr(body.config, key, None) or 0 for key in ("sliding_window", "attention_window")]
    window = max((w for w in windows if isinstance(w, int)), default=0)
    long = min(limit, max(len(ids), 12, min(window, 200) + 8))
    return ids.repeat(long // max(len(ids), 1) + 1)[:long]
