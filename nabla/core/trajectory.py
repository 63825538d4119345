"""A response on its way: its tokens, what a model knows of them, and what a reward says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.values import changed, plain


@dataclass(frozen=True, eq=False)
class States:
    """What a language model in this process knows of a response's rows.

    Args:
        hidden: last hidden states, before the head, that predict each token ``[L, H]``.
        entropy: entropy of ``π(. | y_<i, x)``, nats ``[L]``.
        top1: largest probability of ``π(. | y_<i, x)`` ``[L]``.
    """

    hidden: Float[Tensor, "length hidden"]
    entropy: Float[Tensor, " length"]
    top1: Float[Tensor, " length"]


@dataclass(frozen=True)
class Score:
    """What a reward says of a response. Numbers of numpy and of torch become Python's, in which solutions are
    compared and stored.

    Args:
        value: the reward, in its own unit.
        steps: of each step, in the same unit; empty where the reward has none.
        ends: position in the response of each step's last token.
    """

    value: float
    steps: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", plain(self.value))
        object.__setattr__(self, "steps", tuple(map(plain, self.steps)))
        object.__setattr__(self, "ends", tuple(map(plain, self.ends)))

    def by_token(self, length: int) -> list[float]:
        """The steps at their ends among the tokens of a response of that length, NaN at the others."""
        row = [math.nan] * length
        for step, end in zip(self.steps, self.ends, strict=True):
            row[end] = step
        return row


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A response to a prompt, with what is known of it. Immutable: accepting a proposal is choosing
    another trajectory.

    Args:
        prompt: the problem.
        tokens: ids of the response in the LM's vocabulary, end-of-sequence token included ``[L]``.
        finished: whether the last token is an end-of-sequence token.
        log_probs: ``log π(y_i | y_<i, x)`` at temperature 1, nats ``[L]``; NaN where a server did not tell
            and ``Session.states`` has not asked the local language model.
        sampling: how the tokens were drawn.
        states: of the language model; None where it runs elsewhere, until ``Session.states`` asks for them.
        noise_keys: key of the Gumbel field each token was drawn with ``[L]``; None where the backend has
            no such field.
        committed: number of leading tokens that are final.
        score: the reward's judgement; None until scored.
    """

    prompt: Prompt
    tokens: Int[Tensor, " length"]
    finished: bool
    log_probs: Float[Tensor, " length"]
    sampling: Sampling
    states: States | None = None
    noise_keys: Int[Tensor, " length"] | None = None
    committed: int = 0
    score: Score | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def complete(self) -> bool:
        """Every token is committed."""
        return self.committed >= len(self)

    @property
    def reward(self) -> float | None:
        """The score's value, in the reward model's own unit; None until scored."""
        return None if self.score is None else self.score.value

    @property
    def values(self) -> list[float]:
        """What the reward says at each token, NaN where it says nothing or has not been asked."""
        return (self.score or Score(math.nan)).by_token(len(self))

    @property
    def log_likelihood(self) -> float:
        """``log π(y | x)`` of the whole response, nats; NaN if a token's is not known."""
        return float(self.log_probs.double().sum())

    @property
    def known(self) -> States:
        """The states. Raises ConfigError where there are none."""
        if self.states is None:
            raise ConfigError(
                "The states of this response are not known: it was written elsewhere",
                fix="Await session.states(trajectory) first: a pass of the local language model gives them.",
            )
        return self.states

    @property
    def hidden(self) -> Float[Tensor, "length hidden"]:
        """Of the states."""
        return self.known.hidden

    @property
    def entropy(self) -> Float[Tensor, " length"]:
        """Of the states, nats."""
        return self.known.entropy

    @property
    def top1(self) -> Float[Tensor, " length"]:
        """Of the states."""
        return self.known.top1

    def commit(self, count: int = 1) -> Trajectory:
        """The same text with ``count`` more tokens final."""
        return changed(self, committed=min(self.committed + count, len(self)))

    def with_score(self, score: Score) -> Trajectory:
        """The same text, judged."""
        return changed(self, score=score)

    def with_reward(self, reward: float) -> Trajectory:
        """The same text with a reward that has no steps."""
        return self.with_score(Score(reward))
