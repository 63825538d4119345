"""What outcome and process reward models over transformers share."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.errors import ModelError, NablaError
from nabla.core.prompt import Message
from nabla.core.trajectory import Score
from nabla.models.activations import graph_bytes
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.causal_lm import check_close, verify_prefix_reuse
from nabla.models.causality import require_causal
from nabla.models.channels import Channel, TableChannel
from nabla.models.head import EmbeddingTable
from nabla.models.loading import freeze, load, unwrap
from nabla.models.refusals import reason
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import (
    Judged,
    RelaxedResponse,
    RelaxedReward,
    Response,
    Room,
    unbound,
)
from nabla.rewards.inner import InnerReward
from nabla.rewards.probe import ANSWER, QUESTION, beyond_windows, compare_renderings
from nabla.rewards.reading import FreeTokens, Layout, free_tokens
from nabla.rewards.seam import SeamChannel, SeamTable

#: Said once.
_SEAM = (
    "With what the reward model's template writes before an answer, some tokens would make another number of "
    "ids than the answer's first token does: that token is not refined towards them by the reward"
)


class TransformerReward(InnerReward):
    """A transformers model as reward; abstract: subclasses say how hidden states become a reward.

    Args:
        model: with a ``score`` (or ``classifier``) head over a decoder, PEFT-wrapped or not.
        tokenizer: of the model.
        chat_template, special_tokens: see :class:`~nabla.models.chat.ChatFormat`; special_tokens None: as
            the language model has it. Control tokens that the language model wrote in an answer are control
            tokens in any case.
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
        special_tokens: str | None = None,
        reuse_prefix: bool = True,
    ) -> None:
        super().__init__(
            tokenizer,
            chat_template=chat_template,
            minimum_coverage=minimum_coverage,
            missing=missing,
            answer=answer,
            bos=bos,
            special_tokens=special_tokens,
        )
        self.model = freeze(unwrap(model))
        self.body = Body(self.model.base_model, self.model.config, reuse_prefix=reuse_prefix)
        self.head: Any = self._head()
        self.table: EmbeddingTable | None = None
        self.seam_tables: tuple[SeamTable, ...] = ()
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
        special_tokens: str | None = None,
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

    @cached_property
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

    @property
    def context_length(self) -> int | None:
        return self.body.context_length

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
        messages = (Message("user", QUESTION),)
        compare_renderings(self.chat, messages)
        rendered = self._encode(self.chat.finished(messages, ANSWER))
        self._require_rows(rendered)
        limit = self.body.context_length
        ids = torch.tensor(rendered[: limit or None])
        pad = self.config_pad
        require_causal(self.body, beyond_windows(self.body, ids), name)
        padded = ids if pad is None else torch.cat([ids, torch.tensor([pad, pad])])[: limit or None]
        for row in (ids, padded):
            read = row[: self._stop(row)]
            (output,) = self.body.run([Chunk(EMPTY, self.body.embed(read))])
            check_close(self._read(output.hidden), self._expected(row), "its scores", name)
        probe = torch.tensor([i for i in range(min(10, self.rows)) if i != pad][::-1])
        verify_prefix_reuse(self.body, probe)

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

    # -- vocabulary ------------------------------------------------------------------------------

    def bind(self, vocabulary: Vocabulary) -> TransformerReward:
        bound = super().bind(vocabulary)
        assert isinstance(bound, TransformerReward)
        assert bound.alignment is not None
        bound.body = copy.copy(self.body)
        index, usable = bound.alignment.index, vocabulary.usable
        own = None if index is None else index[:usable]
        bound.table = EmbeddingTable(self.body.embedding, usable, own)
        bound.seam_tables = ()
        if bound.seam is not None:
            bound.seam_tables = tuple(
                bound.seam.table(self.body.embedding, family) for family in range(bound.seam.families)
            )
        return bound

    def _embed(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n hidden"]:
        """Embeddings of this model's ids; zero for a token that it lacks."""
        rows = self.body.embed(ids.clamp_min(0))
        lacking = (ids < 0).to(rows.device).unsqueeze(-1)
        return rows.masked_fill(lacking, 0.0) if bool(lacking.any()) else rows

    # -- rewards ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        layouts = [self.layout(response) for response in responses]
        return self._scored(layouts, [response.account for response in responses], runner)

    @torch.no_grad()
    def _scored(self, layouts: Sequence[Layout], accounts: Sequence[Account], runner: Runner) -> list[Score]:
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
        return (TableChannel(self._bound_table()), *map(SeamChannel, self.seam_tables))

    def _tables(self) -> tuple[EmbeddingTable, ...]:
        """Of all tokens but an answer's first one, and of that one by its family at the template's seam."""
        return (self._bound_table(), *self.seam_tables)

    def _bound_table(self) -> EmbeddingTable:
        if self.table is None:
            raise unbound()
        return self.table

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        layouts = [self.layout(item.response) for item in responses]
        accounts = [item.response.account for item in responses]
        leaves, chunks = self._chunks(responses, layouts, self._free(responses, layouts), runner)
        with torch.enable_grad():
            outputs = runner.forward(self.body, chunks, accounts)
            return [
                RelaxedReward(self._reward(output.hidden, layout), leaf, ((self.body, chunk),))
                for output, layout, leaf, chunk in zip(outputs, layouts, leaves, chunks, strict=True)
            ]

    @property
    def keeps_graphs(self) -> bool:
        return True

    def judged(self, responses: Sequence[RelaxedResponse], runner: Runner, room: Room) -> list[Judged]:
        layouts = [self.layout(item.response) for item in responses]
        accounts = [item.response.account for item in responses]
        free = self._free(responses, layouts)
        before = [row.first if self.body.reuse_prefix else 0 for row in free]  # else in the graph, too
        longest, deepest = max(len(row.tokens) - n for row, n in zip(free, before, strict=True)), max(before)
        if not room(graph_bytes(self.body, len(free), longest, deepest)):
            return [Judged(score, None) for score in self._scored(layouts, accounts, runner)]
        leaves, chunks = self._chunks(responses, layouts, free, runner)
        with torch.enable_grad():
            outputs = runner.forward(self.body, chunks, accounts, keep=True)
            values = [self._reward(o.hidden, layout) for o, layout in zip(outputs, layouts, strict=True)]
        found = []
        for i, (output, layout) in enumerate(zip(outputs, layouts, strict=True)):
            runner.store.put(accounts[i].problem, self.body, free[i].tokens, output.keys)
            with torch.no_grad():
                score = self._judge(output.hidden, layout)
            found.append(Judged(score, RelaxedReward(values[i], leaves[i], ((self.body, chunks[i]),))))
        return found

    def _free(self, responses: Sequence[RelaxedResponse], layouts: Sequence[Layout]) -> list[FreeTokens]:
        """What is free of each response, and what of it is run behind a prefix."""
        return [
            free_tokens(
                layout, layout.tokens[: self._stop(layout.tokens)], item.start, self.reads_whole_response
            )
            for item, layout in zip(responses, layouts, strict=True)
        ]

    def _chunks(
        self,
        responses: Sequence[RelaxedResponse],
        layouts: Sequence[Layout],
        free: Sequence[FreeTokens],
        runner: Runner,
    ) -> tuple[list[tuple[Tensor, ...]], list[Chunk]]:
        """Leaves of each response, one per channel, and the chunk that they enter."""
        tables = self._tables()
        accounts = [item.response.account for item in responses]
        prefixes = runner.prefixes(self.body, [row.tokens[: row.first] for row in free], accounts)
        leaves, chunks = [], []
        for item, layout, prefix, row in zip(responses, layouts, prefixes, free, strict=True):
            own = [item.embeddings(table).detach().requires_grad_() for table in tables]
            with torch.enable_grad():
                embedded = self._embed(row.tokens[len(prefix) :])
                for number, leaf in enumerate(own):
                    family = number - 1
                    chosen = [(i, at) for i, at in row.pairs if (layout.family if i == 0 else -1) == family]
                    if not chosen and family >= 0:
                        continue
                    rows = torch.tensor([i - item.start for i, _ in chosen], dtype=torch.long)
                    at = torch.tensor([at - len(prefix) for _, at in chosen], dtype=torch.long)
                    at = at.to(embedded.device)
                    entering = leaf[rows.to(leaf.device)].to(embedded)
                    if family >= 0:  # the last number: how much of the id that stands there
                        entering = entering[:, :-1] + entering[:, -1:] * embedded[at]
                        self._say_once("seam", _SEAM)
                    embedded = embedded.index_copy(0, at, entering)
            leaves.append(tuple(own))
            chunks.append(Chunk(prefix, embedded))
        return leaves, chunks
