"""What a reward over a transformer says within an answer, at its tokens (SPEC section 14)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.core.trajectory import Score
from nabla.models.body import Body, Chunk, Prefix
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, numbers
from nabla.rewards.conversation import ConversationReward
from nabla.rewards.reading import Layout


class InnerReward(ConversationReward):
    """A reward whose head reads any hidden state; abstract:
    :class:`~nabla.rewards.transformer.TransformerReward` loads and scores."""

    body: Body
    #: What turns hidden states into scores.
    head: Any

    @torch.no_grad()
    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        """See :meth:`nabla.rewards.base.Reward.values`. Read within the answer: what the template writes
        behind it is not run. A token without an id of its own in this model's reading has no value."""
        found = [[math.nan] * (len(text.response.tokens) - text.known) for text in texts]
        # Of each text: tokens that are read, and where they stand in the reward's ids.
        reads, chunks, rows = [], [], []
        for text in texts:
            layout = self.layout(text.response)
            first = len(layout.before)
            own = [(i, first + at) for i, at in self.token_places(layout) if i >= text.known]
            reads.append(own)
            rows.append(layout.tokens[: own[-1][1] + 1] if own else layout.tokens[:0])
        todo = [i for i, own in enumerate(reads) if own]
        accounts = [texts[i].response.account for i in todo]
        for i, account in zip(todo, accounts, strict=True):
            known = runner.known(self.body, rows[i][: reads[i][0][1]], account)
            chunks.append(Chunk(known, self.body.embed(rows[i][len(known) :])))
        outputs = runner.forward(self.body, chunks, accounts, keep=True)
        for i, account, chunk, output in zip(todo, accounts, chunks, outputs, strict=True):
            runner.store.put(account.problem, self.body, rows[i], output.keys)
            at = torch.tensor([place - len(chunk.prefix) for _, place in reads[i]])
            hidden = output.hidden[at.to(output.hidden.device)]
            values = numbers(self.token_rewards(hidden))
            self._count_reads(len(hidden), account)
            for (token, _), value in zip(reads[i], values, strict=True):
                found[i][token - texts[i].known] = value
        return found

    @torch.no_grad()
    def closed_values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        """The score that each prefix has as an answer of its own, which ends there: what the template writes
        behind an answer is run again for each of them, and counted."""
        every = [(i, end) for i, t in enumerate(texts) for end in range(t.known, len(t.response.tokens))]
        if not every:
            return [[] for _ in texts]
        whole, layouts, accounts = {}, [], []
        for i in dict.fromkeys(i for i, _ in every):
            layout = self.layout(texts[i].response)
            whole[i] = torch.cat([layout.before, layout.answer])
        payers = [texts[i].response.account for i in whole]
        known = dict(zip(whole, runner.prefixes(self.body, list(whole.values()), payers), strict=True))
        chunks = []
        for i, end in every:
            response = texts[i].response
            prefix = replace(response, tokens=response.tokens[: end + 1])
            layouts.append(self.layout(prefix))
            accounts.append(response.account)
            row = layouts[-1].tokens[: self._stop(layouts[-1].tokens)]
            behind = _cropped(known[i], _common(whole[i], row[:-1]))
            chunks.append(Chunk(behind, self.body.embed(row[len(behind) :])))
        outputs = runner.forward(self.body, chunks, accounts)
        found: list[list[float]] = [[] for _ in texts]
        for (i, _), layout, account, output in zip(every, layouts, accounts, outputs, strict=True):
            self._count_reads(1, account)
            found[i] += numbers(torch.tensor([self._judge(output.hidden, layout).value], dtype=torch.float64))
        return found

    def _count_reads(self, states: int, account: Account) -> None:
        account.meter.add(account.phase, Usage(flops=states * self.read_flops))

    @property
    def read_flops(self) -> float:
        """Of the head, for one state that it reads."""
        return float(sum(2 * p.numel() for p in self.head.parameters() if p.ndim == 2))

    def token_places(self, layout: Layout) -> list[tuple[int, int]]:
        """(response token, place in the layout's ``answer``) wherever this reward has a value; -1: the token
        before it."""
        return [(i, at) for i, at in enumerate(layout.places.tolist()) if at >= 0]

    @abstractmethod
    def token_rewards(self, hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """The reward of the prefix that ends at each state."""

    @abstractmethod
    def _judge(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Score:
        """The reward as a score, from the hidden states of the last ``n`` tokens of a layout; with its steps
        where it has any."""

    @abstractmethod
    def _stop(self, tokens: Int[Tensor, " n"]) -> int:
        """Number of leading tokens that the reward reads."""


def _common(one: Int[Tensor, " n"], other: Int[Tensor, " m"]) -> int:
    """Length of the common beginning."""
    size = min(len(one), len(other))
    differs = (one[:size] != other[:size]).nonzero()
    return int(differs[0]) if len(differs) else size


def _cropped(prefix: Prefix, length: int) -> Prefix:
    keys: Any = prefix.keys
    return Prefix(prefix.tokens[:length], None if keys is None else keys.crop(length))
