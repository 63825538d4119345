"""Rewards: one number per response, differentiable or not."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.registry import Registry
from nabla.core.trajectory import Score

if TYPE_CHECKING:
    from nabla.core.costs import Account
    from nabla.models.body import Body, Chunk
    from nabla.models.causal_lm import CausalLM
    from nabla.models.channels import Channel
    from nabla.models.head import EmbeddingTable, Head
    from nabla.models.runner import Runner
    from nabla.models.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Response:
    """A response to score.

    Args:
        prompt: what was asked.
        tokens: response ids of the language model, end-of-sequence token included ``[L]``.
        account: who pays.
    """

    prompt: Prompt
    tokens: Int[Tensor, " length"]
    account: Account


@dataclass(frozen=True, eq=False)
class Reading:
    """A response whose values are asked for, token by token; it need not be finished.

    Args:
        response: what is read.
        known: leading tokens whose values are known already.
    """

    response: Response
    known: int = 0


@dataclass(frozen=True, eq=False)
class SoftTokens:
    """Relaxed rows: position → weights over candidate ids; all other tokens are hard.

    Args:
        start: position of the first relaxed row.
        candidates: ids per row ``[R, K]``; None means all usable ids of the language model.
        weights: rows on the simplex ``[R, K]``.
    """

    start: int
    candidates: Int[Tensor, "rows k"] | None
    weights: Float[Tensor, "rows k"]


def expected_log_likelihood(
    head: Head,
    hidden: Float[Tensor, "n hidden"],
    tokens: Int[Tensor, " n"],
    soft: SoftTokens | None,
    start: int = 0,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """``y_i^T log π(.|y_<i)`` and log-normalisers of rows; hard rows need one logit each.

    Args:
        head: of the language model.
        hidden: states that predict the tokens.
        tokens: from position ``start`` of a response on.
        soft: relaxed rows, at their positions in the response.
        start: of the first token.
    """

    def hard(first: int, last: int) -> tuple[Tensor, Tensor]:
        ids = tokens[first:last].unsqueeze(-1)
        return head.log_likelihood(hidden[first:last], ids, torch.ones_like(ids, dtype=hidden.dtype))

    if soft is None:
        return hard(0, len(tokens))
    begin = soft.start - start
    end = begin + len(soft.weights)
    candidates = soft.candidates
    if candidates is None:
        candidates = torch.arange(soft.weights.shape[-1]).expand(end - begin, -1)
    parts = [
        hard(0, begin),
        head.log_likelihood(hidden[begin:end], candidates, soft.weights),
        hard(end, len(tokens)),
    ]
    return torch.cat([v for v, _ in parts]), torch.cat([n for _, n in parts])


def expected_flops(head: Head, rows: int, soft: SoftTokens | None, *, slope: bool = False) -> float:
    """FLOPs of the head in :func:`expected_log_likelihood`, or of the way back to the states: log-partitions
    of all rows, and relaxed rows' own logits. Hard rows need one logit each, which nobody counts."""
    flops = head.flops(rows)
    if soft is None:
        return flops
    relaxed, width = soft.weights.shape
    return flops + (head.slope_flops(relaxed, width) if slope else head.flops(relaxed, width))


@dataclass(frozen=True, eq=False)
class RelaxedResponse:
    """A response to differentiate: ``response`` from position ``start`` on is free."""

    response: Response
    start: int
    soft: SoftTokens | None = None

    def __len__(self) -> int:
        return len(self.response.tokens) - self.start

    def embeddings(self, table: EmbeddingTable) -> Float[Tensor, "n hidden"]:
        """Embeddings of the free positions in one model: ``y_i^T E``. Relaxed rows are a product, which is
        paid for."""
        rows = table.rows(self.response.tokens[self.start :])
        if self.soft is not None:
            at = self.soft.start - self.start
            account = self.response.account
            account.meter.add(account.phase, Usage(flops=table.flops(*self.soft.weights.shape)))
            mixed = table.mix(self.soft.weights, self.soft.candidates).to(rows)
            rows = rows.clone()
            rows[at : at + len(mixed)] = mixed
        return rows


@dataclass(frozen=True, eq=False)
class RelaxedReward:
    """A differentiable reward of one relaxed response.

    Args:
        value: the reward, a scalar with a graph down to ``leaves``.
        leaves: embeddings of the free positions, one tensor per channel of the reward ``[n, H]``.
        passes: (body, chunk) of each forward pass in the graph, to count its backward pass.
    """

    value: Float[Tensor, ""]
    leaves: tuple[Float[Tensor, "n _"], ...]
    passes: tuple[tuple[Body, Chunk], ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """A score, and the graph of the pass that gave it.

    Args:
        score: of a hard text.
        reward: the same as a number with a graph; None where there was no room for it.
    """

    score: Score
    reward: RelaxedReward | None


#: Asked before a graph of so many bytes is kept; False: there is no room.
Room = Callable[[int], bool]


class Reward(ABC):
    """Scores responses; the gradient is optional.

    A differentiable reward also says where relaxed tokens enter it (:meth:`channels`) and implements
    :meth:`relaxed`.
    """

    #: Unit of the value, for reports.
    unit: str = "reward logits"

    @property
    def differentiable(self) -> bool:
        """Whether :meth:`relaxed` may be called."""
        return False

    #: Ids of the language model that this reward cannot read, and that may therefore not be written.
    unreadable: Int[Tensor, " n"] | None = None

    #: Of the language model whose responses are scored; None before :meth:`bind`.
    vocabulary: Vocabulary | None = None

    def written_by(self, lm: CausalLM | None) -> Reward:
        """This reward where a language model writes what is scored; None: one that runs elsewhere. It comes
        before :meth:`bind`; a reward that asks the writer itself overrides it. Raises ConfigError."""
        return self

    def bind(self, vocabulary: Vocabulary) -> Reward:
        """This reward for a language model's tokens: a view, the reward itself stays as it is.

        Raises VocabularyError.
        """
        bound = copy.copy(self)
        bound.vocabulary = vocabulary
        return bound

    def text(self, response: Response) -> str:
        """The response as text, exactly: for rewards that read text and not the language model's ids.

        Raises ConfigError before :meth:`bind`.
        """
        if self.vocabulary is None:
            raise unbound()
        return self.vocabulary.response(response.tokens)

    @abstractmethod
    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        """One score per response, in order; its value may be NaN, which the engine reports."""

    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        """What it says at each token of unfinished texts, from ``known`` on ``[L - known]``; NaN at a token
        for which it says nothing (a step that goes on). Positive is good: log-odds where the model gives a
        probability. Raises NumericalError where a model gives NaN.

        By default the steps of :meth:`score`; a reward that reads every token in one forward pass says so
        here, and runs no token again whose keys and values are stored.
        """
        scores = self.score([text.response for text in texts], runner)
        return [
            score.by_token(len(text.response.tokens))[text.known :]
            for text, score in zip(texts, scores, strict=True)
        ]

    @property
    def has_values(self) -> bool:
        """Whether :meth:`values` says anything. A reward whose :meth:`score` has steps, without ``values`` of
        its own, overrides this."""
        return type(self).values is not Reward.values

    @property
    def reads_every_token(self) -> bool:
        """Whether a value is that of the prefix which ends at its token, whatever follows. Otherwise the last
        token's may be that of a step which is not at its end yet, and holds for this text alone."""
        return False

    def together(self, values: Sequence[float], response: Response | None = None) -> float | None:
        """The reward of a text from its values at all tokens, NaN where there is none; None where it is no
        function of them (an outcome reward, read behind the answer), or of them and the text, which is not
        given."""
        return None

    def of_policy(
        self, log_probs: Sequence[float], response: Response | None = None
    ) -> list[float] | None:
        """Its values from the policy's own log-probabilities of a response, nats; None where it needs a model
        to tell, or the response, which is not given."""
        return None

    def token_log_probs(self, values: Sequence[float], log_probs: Sequence[float]) -> list[float]:
        """By which a change point is surprised at a token (SPEC section 14), nats: the policy's own
        log-probabilities, unless the values are log-odds of single tokens, which tell a mistake at its token
        and recover behind it.

        Args:
            values: of the reward at some tokens, NaN where there is none.
            log_probs: of the policy, of the same tokens, nats.
        """
        return list(log_probs)

    @property
    def keeps_graphs(self) -> bool:
        """Whether :meth:`judged` may be called."""
        return False

    def judged(self, responses: Sequence[RelaxedResponse], runner: Runner, room: Room) -> list[Judged]:
        """Scores of hard texts by passes that keep their graph down to the free positions, as
        :meth:`relaxed` gives it. Optional: a reward without it is scored and later differentiated.

        Args:
            responses: none with relaxed rows.
            runner: counts and batches.
            room: to be asked for the graph's bytes before it is built; if there is none, texts are only
                scored.
        """
        raise NotImplementedError(type(self).__name__)

    def channels(self) -> tuple[Channel, ...]:
        """Where relaxed tokens enter it: one channel for each leaf of :meth:`relaxed`."""
        return ()

    def bodies(self) -> tuple[Body, ...]:
        """The transformers that it runs, for settings of the engine."""
        return ()

    def holders(self) -> tuple[Any, ...]:
        """What has its transformers as ``model``, to be moved to a device."""
        return (self,) if hasattr(self, "model") else ()

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        """Rewards with a graph down to the embeddings of the free positions."""
        raise ConfigError(
            f"{type(self).__name__} is not differentiable",
            fix="Use it for acceptance only: choose an objective without a reward term, "
            "or pass a reward model.",
        )


def require_reward(reward: Reward | None, what: str) -> Reward:
    """The reward. Raises ConfigError if there is none.

    Args:
        reward: of the run.
        what: why one is needed, the beginning of the message.
    """
    if reward is None:
        raise ConfigError(
            f"{what}: a reward is needed, and there is none",
            fix="Pass a reward model (rm=...) or a Python reward.",
        )
    return reward


def not_finite(value: float) -> NumericalError:
    """For a reward that is no number."""
    return NumericalError(
        "The reward is NaN or infinite",
        got=value,
        fix="Check the reward: a model's dtype (try float32) and weights, or your function.",
    )


def numbers(values: Float[Tensor, " n"]) -> list[float]:
    """What a model says at tokens. Raises NumericalError for NaN, which would pass for a token without a
    value."""
    found: list[float] = values.tolist()
    if any(map(math.isnan, found)):
        raise not_finite(math.nan)
    return found


def unbound() -> ConfigError:
    """For a reward that is asked before it knows the language model's tokens."""
    return ConfigError(
        "The reward is not bound to a language model", fix="Use what bind(vocabulary) returns."
    )


def require_values(reward: Reward | None, what: str) -> Reward:
    """The reward, which says something at the tokens of a text. Raises ConfigError if there is none or it
    says nothing there."""
    reward = require_reward(reward, what)
    if not reward.has_values:
        raise ConfigError(
            f"{what}: the reward has values at tokens for that, and this one has none",
            got=type(reward).__name__,
            fix="Pass a reward model, a process reward, or the likelihood of a language model "
            "(name: likelihood).",
        )
    return reward


def require_differentiable(reward: Reward | None, what: str, fix: str) -> Reward:
    """The reward, which has a gradient. Raises ConfigError if there is none or it has none.

    Args:
        reward: of the run.
        what: needs it, the beginning of the message.
        fix: what to do instead of passing a reward model.
    """
    if reward is None or not reward.differentiable:
        raise ConfigError(
            f"{what}, which needs a differentiable reward",
            got=None if reward is None else type(reward).__name__,
            fix=f"Pass a reward model (rm=...), or {fix}.",
        )
    return reward


rewards: Registry[Reward] = Registry("rewards", lambda: Reward, __package__)
