"""A reward that errs: how a search stands it is a question of its own (SPEC section 14)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ConfigError, require_finite
from nabla.core.prompt import Prompt, text_id
from nabla.core.random import derive_key
from nabla.core.text import pieces
from nabla.core.trajectory import Score
from nabla.rewards.base import (
    Judged,
    Reading,
    RelaxedResponse,
    RelaxedReward,
    Response,
    Reward,
    Room,
    rewards,
    unbound,
)

if TYPE_CHECKING:
    from nabla.models.body import Body
    from nabla.models.causal_lm import CausalLM
    from nabla.models.channels import Channel
    from nabla.models.runner import Runner
    from nabla.models.vocabulary import Vocabulary

_NORMAL = NormalDist()


@rewards.register("noisy")
class NoisyReward(Reward):
    """Another reward whose values are wrong by ``scale · e_t`` in step t, with
    ``e_t = persistence · e_{t-1} + sqrt(1 - persistence²) · ε_t`` and standard normal ε_t.

    ε_t is a hash of the seed, the prompt and the tokens before the step. An error is therefore the same for
    all tokens of a step, and for all that are drawn in its place: who draws the step again does not average
    it away. It depends on nothing else, no batch and no neighbour. The gradient is that of the reward within:
    the error does not change with the tokens that are refined.

    Scales for the sandbox's process rewards (``experiments/sandbox/noise.py``; 600 samples of the policy for
    training problems, a line of the calculation as a step): an AUC of .95, .85 and .75 of good tokens against
    first wrong ones takes 7.07, 11.45 and 17.7 on arithmetic (measured .949, .850, .750; with persistence 0.9
    .954, .859, .761).

    Args:
        reward: that is degraded; in a configuration its specification.
        scale: standard deviation of the error, in the reward's own unit; :func:`calibrated` finds the one for
            a given AUC.
        persistence: correlation of the errors of neighbouring steps, 0 (each its own) to below 1 (they last
            along a text, which harms most).
        steps: texts that end a step; none: each token is one.
        outcome: a whole text's reward errs as its last step does; otherwise it is that of the reward within.
        seed: of the errors.

    Raises ConfigError.
    """

    unit = "of the reward within"

    def __init__(
        self,
        reward: Reward,
        scale: float,
        *,
        persistence: float = 0.0,
        steps: Sequence[str] = (),
        outcome: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(reward, Reward):
            raise ConfigError(
                "A noisy reward degrades a reward", got=reward, fix="Name one: {name: noisy, reward: ...}."
            )
        self.inner = reward
        self.scale = require_finite("scale", scale, minimum=0)
        self.persistence = require_finite("persistence", persistence, minimum=0)
        if self.persistence >= 1:
            raise ConfigError("persistence must be below 1: with 1 no error is a step's own", got=persistence)
        if isinstance(steps, str) or not all(isinstance(step, str) and step for step in steps):
            raise ConfigError(
                "steps are the texts that end one, none of them empty", got=steps, fix='Write ["\\n"].'
            )
        self.steps, self.outcome, self.seed = tuple(steps), outcome, seed
        self.unit = reward.unit
        self.tokenizer = getattr(reward, "tokenizer", None)

    # -- the reward within -----------------------------------------------------------------------

    def _around(self, inner: Reward) -> NoisyReward:
        made = copy.copy(self)
        made.inner = inner
        return made

    def written_by(self, lm: CausalLM | None) -> NoisyReward:
        return self._around(self.inner.written_by(lm))

    def bind(self, vocabulary: Vocabulary) -> NoisyReward:
        bound = self._around(self.inner.bind(vocabulary))
        bound.vocabulary = vocabulary
        return bound

    @property
    def unreadable(self) -> Tensor | None:  # type: ignore[override]
        return self.inner.unreadable

    @property
    def differentiable(self) -> bool:
        return self.inner.differentiable

    @property
    def keeps_graphs(self) -> bool:
        return self.inner.keeps_graphs

    @property
    def has_values(self) -> bool:
        return self.inner.has_values

    @property
    def reads_every_token(self) -> bool:
        return self.inner.reads_every_token

    def token_log_probs(self, values: Sequence[float], log_probs: Sequence[float]) -> list[float]:
        return self.inner.token_log_probs(values, log_probs)

    def bodies(self) -> tuple[Body, ...]:
        return self.inner.bodies()

    def holders(self) -> tuple[Any, ...]:
        return self.inner.holders()

    def channels(self) -> tuple[Channel, ...]:
        return self.inner.channels()

    # -- the errors ------------------------------------------------------------------------------

    def errors(self, prompt: Prompt, tokens: Int[Tensor, " length"]) -> list[float]:
        """What is added to the value of each token. Raises ConfigError before :meth:`bind`."""
        ids: list[int] = tokens.tolist()
        asked, found, error = text_id(prompt.messages), list[float](), 0.0
        ended = set(self._ends(ids))
        for place in range(len(ids)):
            if place == 0 or place - 1 in ended:
                before = ",".join(map(str, ids[:place]))
                key = derive_key("noisy reward", self.seed, asked, before)
                own = _NORMAL.inv_cdf((key + 0.5) / 2**63)
                lasting = self.persistence if place else 0.0
                error = lasting * error + math.sqrt(1 - lasting**2) * own
            found.append(self.scale * error)
        return found

    def _ends(self, ids: Sequence[int]) -> list[int]:
        """Tokens that end a step."""
        if not self.steps:
            return list(range(len(ids)))
        if self.vocabulary is None:
            raise unbound()
        words, ends, text = self.vocabulary, [], ""
        # Within the text: by themselves some tokenizers' words lose their blank, and parts of a character it.
        for place, piece in enumerate(pieces(words.tokenizer, ids, words.lead, words.eos_ids)):
            text += piece
            if any(step in text for step in self.steps):
                ends.append(place)
                text = ""
        return ends

    def _last(self, response: Response) -> float:
        """The error of a whole text's reward."""
        errors = self.errors(response.prompt, response.tokens) if self.outcome else []
        return errors[-1] if errors else 0.0

    # -- scores and values -----------------------------------------------------------------------

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        scores = self.inner.score(responses, runner)
        return [self._score(*pair) for pair in zip(responses, scores, strict=True)]

    def _score(self, response: Response, score: Score) -> Score:
        errors = self.errors(response.prompt, response.tokens)
        steps = tuple(step + errors[end] for step, end in zip(score.steps, score.ends, strict=True))
        return replace(score, value=score.value + self._last(response), steps=steps)

    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        found = []
        for text, row in zip(texts, self.inner.values(texts, runner), strict=True):
            errors = self.errors(text.response.prompt, text.response.tokens)[text.known :]
            found.append([value + error for value, error in zip(row, errors, strict=True)])
        return found

    def together(self, values: Sequence[float], response: Response | None = None) -> float | None:
        if response is None:
            return None
        errors = self.errors(response.prompt, response.tokens)
        clean = [value - error for value, error in zip(values, errors, strict=True)]
        total = self.inner.together(clean, response)
        return None if total is None else total + self._last(response)

    def of_policy(
        self, log_probs: Sequence[float], response: Response | None = None
    ) -> list[float] | None:
        known = None if response is None else self.inner.of_policy(log_probs, response)
        if response is None or known is None:
            return None
        errors = self.errors(response.prompt, response.tokens)
        return [value + error for value, error in zip(known, errors, strict=True)]

    # -- the gradient ----------------------------------------------------------------------------

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        found = self.inner.relaxed(responses, runner)
        return [
            replace(reward, value=reward.value + self._last(item.response))
            for item, reward in zip(responses, found, strict=True)
        ]

    def judged(self, responses: Sequence[RelaxedResponse], runner: Runner, room: Room) -> list[Judged]:
        found = []
        for item, judged in zip(responses, self.inner.judged(responses, runner, room), strict=True):
            reward = judged.reward
            if reward is not None:
                reward = replace(reward, value=reward.value + self._last(item.response))
            found.append(Judged(self._score(item.response, judged.score), reward))
        return found


def calibrated(good: Sequence[float], bad: Sequence[float], auc: float) -> float:
    """The scale of independent normal errors at which a good token's value is above a bad one's in a share
    ``auc`` of all pairs: the root of ``mean Φ((g - b) / (s √2)) = auc``.

    Args:
        good: values, without errors, of tokens before the first wrong one.
        bad: of first wrong tokens.
        auc: wanted, above 0.5 and at most what the values have without errors.

    Raises ConfigError where it cannot be reached.
    """
    gaps = torch.tensor(good, dtype=torch.float64)[:, None] - torch.tensor(bad, dtype=torch.float64)

    def reached(scale: float) -> float:
        if scale == 0:
            return float((gaps > 0).double().mean() + (gaps == 0).double().mean() / 2)
        return float(torch.special.ndtr(gaps / (scale * math.sqrt(2))).mean())

    if gaps.numel() == 0 or not 0.5 < auc <= reached(0.0):
        top = None if gaps.numel() == 0 else round(reached(0.0), 4)
        raise ConfigError(
            "Errors only lower an AUC, and never below 0.5",
            got=auc,
            fix=f"Ask for more than 0.5 and at most what there is without errors ({top}).",
        )
    low, high = 0.0, 1.0
    while reached(high) > auc:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > auc else (low, middle)
    return (low + high) / 2
