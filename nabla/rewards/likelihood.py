"""A language model as judge: how probable it finds each token of an answer (SPEC section 14)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, ModelError, VocabularyError
from nabla.core.trajectory import Score
from nabla.models.body import Body, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.channels import Channel, Pull, SumPull, TableChannel
from nabla.models.head import Head
from nabla.models.precision import work_dtype
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import (
    Reading,
    RelaxedResponse,
    RelaxedReward,
    Response,
    Reward,
    expected_flops,
    expected_log_likelihood,
    numbers,
    rewards,
    unbound,
)
from nabla.rewards.process import AGGREGATIONS

#: Probabilities are read as at most 1 minus this: a log-odds stays finite, and single precision knows no
#: difference above it.
CERTAIN = 1e-7


def log_odds(log_probs: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """``log p - log(1 - p)`` of log-probabilities, p at most ``1 - CERTAIN``; differentiable."""
    bounded = log_probs.clamp_max(torch.log1p(log_probs.new_tensor(-CERTAIN)))
    return bounded - torch.log(-torch.expm1(bounded))


@rewards.register("likelihood")
class LikelihoodReward(Reward):
    """The log-odds that a causal language model gives to each token of an answer, end-of-sequence token
    included: a process reward without training. A relaxed row counts with its expected log-probability,
    ``y^T log π(.)``, as in the likelihood term (SPEC section 2).

    Args:
        judge: with the tokenizer of the language model that writes, in its own chat format. None, or that
            language model: the policy itself judges. Scores and values then follow from what its rollouts
            know, without a pass; where it runs elsewhere there is none to ask.
        aggregation: ``min``, ``mean``, ``sum`` or ``last`` over an answer's tokens.

    Raises ConfigError for another aggregation.
    """

    unit = "log-odds of a token"

    def __init__(
        self, judge: CausalLM | None = None, aggregation: Literal["min", "mean", "sum", "last"] = "min"
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ConfigError("Unknown aggregation", got=aggregation, fix=f"Use {', '.join(AGGREGATIONS)}.")
        self._judge, self.aggregation = judge, aggregation
        self.tokenizer = None if judge is None else judge.vocabulary.tokenizer

    @property
    def judge(self) -> CausalLM:
        """The model that is asked. Raises ConfigError where the policy judges and is not known yet."""
        if self._judge is None:
            raise ConfigError(
                "A judge by likelihood without a model of its own does not know yet which one writes",
                fix="Run it in an engine, which says so (written_by(lm)), or name a judge: "
                "{name: likelihood, path: PATH_OR_ID}.",
            )
        return self._judge

    def written_by(self, lm: CausalLM | None) -> LikelihoodReward:
        """Raises ConfigError where the policy is to judge and runs elsewhere."""
        if self._judge is not None:
            return self
        if lm is None:
            raise ConfigError(
                "The policy itself is to judge by its likelihood, and it runs elsewhere",
                fix="Name a judge that runs here: {name: likelihood, path: PATH_OR_ID}.",
            )
        return LikelihoodReward(lm, self.aggregation)

    @classmethod
    def from_pretrained(
        cls, path: str, *, aggregation: Literal["min", "mean", "sum", "last"] = "min", **arguments: Any
    ) -> LikelihoodReward:
        """From a folder or hub id of a causal language model; ``arguments`` are those of
        :meth:`nabla.models.causal_lm.CausalLM.from_pretrained`. Raises ModelError."""
        return cls(CausalLM.from_pretrained(path, **arguments), aggregation)

    def bind(self, vocabulary: Vocabulary) -> LikelihoodReward:
        """Raises VocabularyError where the judge's tokens are others than the language model's."""
        bound = copy.copy(self)
        bound._judge = self.judge.view()
        bound.vocabulary = vocabulary
        own, other = self.judge.vocabulary.tokenizer.get_vocab(), vocabulary.tokenizer.get_vocab()
        if own != other:
            differing = sorted(t for t in {*own, *other} if own.get(t) != other.get(t))
            raise VocabularyError(
                "A judge by likelihood needs the tokenizer of the language model that writes",
                got=", ".join(map(repr, differing[:5])),
                fix="Use a model of the same tokenizer, or a reward model (rm=...).",
            )
        lacking = torch.arange(bound.judge.head.usable, vocabulary.usable)
        bound.unreadable = lacking if len(lacking) else None
        return bound

    @property
    def reads_every_token(self) -> bool:
        return True

    def together(self, values: Sequence[float], response: Response | None = None) -> float | None:
        if not values:
            return None
        return float(AGGREGATIONS[self.aggregation](torch.tensor(list(values), dtype=torch.float64)))

    def of_policy(
        self, log_probs: Sequence[float], response: Response | None = None
    ) -> list[float] | None:
        if self.vocabulary is not self.judge.vocabulary:
            return None
        found: list[float] = log_odds(torch.tensor(list(log_probs), dtype=torch.float64)).tolist()
        return found

    def token_log_probs(self, values: Sequence[float], log_probs: Sequence[float]) -> list[float]:
        """The judge's own; the policy's where it judges itself, or where there is no value."""
        if self.vocabulary is self.judge.vocabulary:
            return list(log_probs)
        told = torch.nn.functional.logsigmoid(torch.tensor(list(values), dtype=torch.float64)).tolist()
        return [own if math.isnan(p) else p for p, own in zip(told, log_probs, strict=True)]

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        scores = []
        values = self.values([Reading(response) for response in responses], runner)
        for response, row in zip(responses, values, strict=True):
            if not row:
                raise ModelError("A judge by likelihood reads no empty answer", got=response.prompt.id)
            scores.append(Score(self._total(row), tuple(row), tuple(range(len(row)))))
        return scores

    def _total(self, row: Sequence[float]) -> float:
        total = self.together(row)
        assert total is not None
        return total

    @torch.no_grad()
    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        body, head = self.judge.body, self.judge.head
        found: list[list[float]] = [[] for _ in texts]
        todo = [i for i, text in enumerate(texts) if text.known < len(text.response.tokens)]
        prompts = [self._prompt(texts[i].response) for i in todo]
        chunks, accounts = [], [texts[i].response.account for i in todo]
        for i, prompt, account in zip(todo, prompts, accounts, strict=True):
            known, tokens = texts[i].known, texts[i].response.tokens
            # The state before a token says how probable it is; the last token's own is not needed.
            sequence = torch.cat([prompt, tokens[:-1]])
            prefix = runner.known(body, sequence[: len(prompt) + known - 1], account)
            chunks.append(Chunk(prefix, body.embed(sequence[len(prefix) :])))
        outputs = runner.forward(body, chunks, accounts, keep=True)
        for i, prompt, account, output in zip(todo, prompts, accounts, outputs, strict=True):
            known, tokens = texts[i].known, texts[i].response.tokens
            runner.store.put(account.problem, body, torch.cat([prompt, tokens[:-1]]), output.keys)
            hidden = output.hidden[-(len(tokens) - known) :]
            account.meter.add(account.phase, Usage(flops=head.flops(len(hidden))))
            own = tokens[known:].to(head.device).unsqueeze(-1)
            log_probs, _ = head.log_likelihood(hidden, own, torch.ones_like(own, dtype=hidden.dtype))
            found[i] = numbers(log_odds(log_probs.double()))
        return found

    def _prompt(self, response: Response) -> Int[Tensor, " prompt"]:
        return self.judge.vocabulary.encode(response.prompt)

    # -- the gradient ----------------------------------------------------------------------------

    @property
    def differentiable(self) -> bool:
        return True

    def bodies(self) -> tuple[Body, ...]:
        return (self.judge.body,)

    def holders(self) -> tuple[Any, ...]:
        return () if self._judge is None else (self._judge,)

    def channels(self) -> tuple[Channel, ...]:
        """Tokens enter as what later ones are conditioned on, and as what is judged."""
        return TableChannel(self.judge.table), JudgedChannel(self.judge.head)

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        if self.vocabulary is None:
            raise unbound()
        body = self.judge.body
        accounts = [item.response.account for item in responses]
        embedded = [item.embeddings(self.judge.table).detach().requires_grad_() for item in responses]
        # All tokens are judged, those before the free ones too; the last one conditions nothing.
        before = [torch.cat([self._prompt(i.response), i.response.tokens[: i.start]]) for i in responses]
        starts = [len(row) - item.start - 1 for row, item in zip(before, responses, strict=True)]
        prefixes = runner.prefixes(
            body, [row[:n] for row, n in zip(before, starts, strict=True)], accounts
        )
        chunks = [
            Chunk(prefix, torch.cat([body.embed(row[len(prefix) :]), leaf[:-1].to(body.device)]))
            for prefix, row, leaf in zip(prefixes, before, embedded, strict=True)
        ]
        with torch.enable_grad():
            outputs = runner.forward(body, chunks, accounts)
            found = []
            for item, leaf, chunk, output in zip(responses, embedded, chunks, outputs, strict=True):
                hidden = output.hidden[-len(item.response.tokens) :]
                values, judged = self._judged(item, hidden)
                total = AGGREGATIONS[self.aggregation](log_odds(values))
                found.append(RelaxedReward(total, (leaf, judged), ((body, chunk),)))
        return found

    def _judged(self, item: RelaxedResponse, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Expected log-probability of each row, and the leaf at which rows enter as what is judged."""
        head, tokens = self.judge.head, item.response.tokens
        account = item.response.account
        # The gradient in the states is formed together with the values.
        rows, soft = len(hidden), item.soft
        flops = expected_flops(head, rows, soft) + expected_flops(head, rows, soft, slope=True)
        account.meter.add(account.phase, Usage(flops=flops))
        values, normalisers = expected_log_likelihood(head, hidden, tokens, item.soft)
        free = slice(item.start, len(tokens))
        known = hidden[free].detach().to(values)
        ones = torch.ones_like(known[:, :1])
        slopes = torch.cat([known, normalisers[free].detach().to(values).unsqueeze(-1), ones], -1)
        # Zero, but its derivative is ∂r/∂(log-likelihood of the row) times what a row's logits follow from.
        leaf = torch.zeros_like(slopes).requires_grad_()
        direct = torch.cat([values.new_zeros(item.start), (leaf * slopes).sum(-1)])
        return values + direct, leaf


@dataclass(frozen=True, eq=False)
class JudgedPull(Pull):
    """``s_i log π(. | y_<i)``: the gradient of an answer's likelihood in the rows that are judged.

    Args:
        slopes: ``s_i`` times (hidden state, log-normaliser, 1) per free position ``[n, H + 2]``.
        head: of the judge.
    """

    slopes: Float[Tensor, "n width"]
    head: Head

    def rows(
        self, places: Int[Tensor, " r"], candidates: Int[Tensor, "r k"] | None
    ) -> Float[Tensor, "r k"]:
        chosen = self.slopes[places.to(self.slopes.device)]
        weight = chosen[:, -1:]
        state = torch.where(weight == 0, torch.zeros_like(chosen), chosen / weight)
        log_probs = self.head.logits(state[:, :-2], candidates) - state[:, -2:-1]
        return weight.to(work_dtype(weight.dtype)) * log_probs

    def flops(self, rows: int, width: int) -> float:
        return 2.0 * rows * width * (self.slopes.shape[-1] - 2)

    def scaled(self, weight: float) -> JudgedPull:
        return JudgedPull(weight * self.slopes, self.head)

    def plus(self, other: Pull) -> Pull:
        return SumPull((self, other))


@dataclass(frozen=True, eq=False)
class JudgedChannel(Channel):
    """Relaxed tokens enter as what is judged."""

    head: Head

    def pull(self, slope: Float[Tensor, "n width"]) -> JudgedPull:
        return JudgedPull(slope, self.head)
