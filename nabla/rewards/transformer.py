"""What outcome and process reward models over transformers share."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.trajectory import Score
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.causal_lm import check_close, verify_prefix_reuse
from nabla.models.channels import Channel, TableChannel
from nabla.models.chat import ChatFormat
from nabla.models.head import EmbeddingTable
from nabla.models.loading import freeze, load, unwrap
from nabla.models.runner import Runner
from nabla.models.vocabulary import Alignment, Vocabulary, align
from nabla.rewards.base import RelaxedResponse, RelaxedReward, Response, Reward, unbound

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Layout:
    """A response as the reward model reads it, in its own ids.

    Args:
        before: template up to the answer.
        answer: the answer's tokens ``[visible]``.
        after: what the template writes behind it.
        visible: number of response tokens that are read; a final end-of-sequence token is read only
            where the template writes that very token behind the answer.
    """

    before: Int[Tensor, " before"]
    answer: Int[Tensor, " visible"]
    after: Int[Tensor, " after"]
    visible: int

    @property
    def tokens(self) -> Int[Tensor, " n"]:
        """Everything."""
        return torch.cat([self.before, self.answer, self.after])

    @property
    def first_read(self) -> int:
        """First token whose hidden state a per-token reward reads: the answer's first, or the
        question's last where the answer is empty."""
        return len(self.before) - (1 if self.visible == 0 else 0)


class TransformerReward(Reward):
    """A transformers model as reward; abstract: subclasses say how hidden states become a reward.

    Args:
        model: with a ``score`` (or ``classifier``) head over a decoder, PEFT-wrapped or not.
        tokenizer: of the model.
        chat_template: see :class:`~nabla.models.chat.ChatFormat`.
        minimum_coverage: smallest share of the language model's tokens that must be known
            (:func:`nabla.models.vocabulary.align`); missing ones are forbidden to the language model.
        reuse_prefix: cache keys and values of prefixes.
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
        reuse_prefix: bool = True,
    ) -> None:
        self.model = freeze(unwrap(model))
        self.tokenizer = tokenizer
        self.chat = ChatFormat(tokenizer, chat_template)
        self.minimum_coverage = minimum_coverage
        self.body = Body(self.model.base_model, self.model.config, reuse_prefix=reuse_prefix)
        self.head: Any = getattr(self.model, "score", getattr(self.model, "classifier", None))
        self.alignment: Alignment | None = None
        self.table: EmbeddingTable | None = None
        self._eos: tuple[int, ...] = ()
        self._layouts: dict[Any, tuple[Tensor, Tensor]] = {}
        self._verify()

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        chat_template: str | None = None,
        minimum_coverage: float = 0.9,
        reuse_prefix: bool = True,
        settings: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> TransformerReward:
        """From a folder or hub id; ``arguments`` are :func:`nabla.models.loading.load`'s, ``settings`` a
        subclass's own. Raises ModelError."""
        import transformers

        model, tokenizer = load(getattr(transformers, cls.auto), str(path), role="reward model", **arguments)
        return cls(
            model,
            tokenizer,
            chat_template=chat_template,
            minimum_coverage=minimum_coverage,
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

    @torch.no_grad()
    def _verify(self) -> None:
        """Body and head must give what the model gives; raises ModelError otherwise."""
        count = int(next(self.body.embedding.parameters()).shape[0])
        ids = torch.tensor([i for i in range(min(10, count)) if i != self.config_pad][::-1])
        if self.head is None:
            raise ModelError(
                f"{type(self.model).__name__} has no 'score' or 'classifier' head over a decoder",
                fix="Use a decoder reward model (Qwen, Llama, Mistral, Gemma, GPT-NeoX, ... "
                "ForSequenceClassification or ForTokenClassification).",
            )
        (output,) = self.body.run([Chunk(EMPTY, self.body.embed(ids))])
        check_close(self._read(output.hidden), self._expected(ids), "its scores", type(self.model).__name__)
        verify_prefix_reuse(self.body, ids)

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
        bound.body, bound._layouts = copy.copy(self.body), {}
        bound.alignment = align(
            vocabulary.tokenizer, self.tokenizer, minimum_coverage=self.minimum_coverage
        )
        index, usable = bound.alignment.index, vocabulary.usable
        bound._eos = vocabulary.eos_ids
        bound.table = EmbeddingTable(self.body.embedding, usable, None if index is None else index[:usable])
        bound.unreadable = None
        if index is not None:
            known = index[:usable] >= 0
            known[[e for e in bound._eos if e < len(known)]] = True  # never read as part of an answer
            missing = (~known).nonzero()[:, 0]
            if len(missing):
                bound.unreadable = missing
                log.warning(
                    "The reward model lacks %d of the language model's tokens (coverage %.2f %%); they "
                    "are forbidden",
                    len(missing),
                    100 * bound.alignment.coverage,
                )
        return bound

    def _map(self, tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        assert self.alignment is not None
        index = self.alignment.index
        return tokens if index is None else index[tokens]

    def layout(self, response: Response) -> Layout:
        """The response in this model's ids. Raises ConfigError before :meth:`bind`."""
        if self.alignment is None:
            raise unbound()
        messages = response.prompt.messages
        if messages not in self._layouts:
            if len(self._layouts) > 4096:
                self._layouts.clear()
            self._layouts[messages] = self.chat.around(messages)
        before, after = self._layouts[messages]
        tokens = response.tokens.cpu()
        visible = len(tokens)
        if visible and int(tokens[-1]) in self._eos:
            closing = int(self._map(tokens[-1:])[0])
            if len(after) and int(after[0]) == closing:
                after = after[1:]  # the answer's own end-of-turn token stands there
            else:
                visible -= 1
        layout = Layout(before, self._map(tokens[:visible]), after, visible)
        limit = getattr(self.body.config, "max_position_embeddings", None)
        if limit and len(layout.tokens) > limit:
            raise ModelError(
                f"The reward model's context holds {limit} tokens",
                got=f"{len(layout.tokens)} tokens",
                fix="Lower max_new_tokens or use a reward model with a longer context.",
            )
        return layout

    # -- rewards ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        layouts = [self.layout(response) for response in responses]
        accounts = [response.account for response in responses]
        tokens = [layout.tokens for layout in layouts]
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
        return [
            self._judge(output.hidden, layout) for output, layout in zip(outputs, layouts, strict=True)
        ]

    @property
    def differentiable(self) -> bool:
        return True

    def bodies(self) -> tuple[Body, ...]:
        return (self.body,)

    def channels(self) -> tuple[Channel, ...]:
        return (TableChannel(self._bound_table()),)

    def _bound_table(self) -> EmbeddingTable:
        if self.table is None:
            raise unbound()
        return self.table

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        table = self._bound_table()
        layouts = [self.layout(item.response) for item in responses]
        accounts = [item.response.account for item in responses]
        # Where a reward reads every step, the frozen part of the answer is run again with the rest.
        tokens = [layout.tokens for layout in layouts]
        firsts = [
            layout.first_read
            if self.reads_whole_response
            else min(len(layout.before) + item.start, len(row) - 1)
            for layout, item, row in zip(layouts, responses, tokens, strict=True)
        ]
        prefixes = runner.prefixes(
            self.body, [row[:n] for row, n in zip(tokens, firsts, strict=True)], accounts
        )
        leaves, chunks = [], []
        for item, layout, prefix, row in zip(responses, layouts, prefixes, tokens, strict=True):
            leaf = item.embeddings(table).detach().requires_grad_()
            free = max(layout.visible - item.start, 0)
            head = self.body.embed(row[len(prefix) : len(layout.before) + item.start])
            tail = self.body.embed(layout.after)
            leaves.append(leaf)
            chunks.append(Chunk(prefix, torch.cat([head, leaf[:free], tail])))
        with torch.enable_grad():
            outputs = runner.forward(self.body, chunks, accounts)
            return [
                RelaxedReward(self._reward(output.hidden, layout), (leaf,), ((self.body, chunk),))
                for output, layout, leaf, chunk in zip(outputs, layouts, leaves, chunks, strict=True)
            ]
