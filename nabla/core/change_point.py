"""Where the first mistake is, as a change point of a reward's values (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nabla.core.errors import ConfigError, require_finite


@dataclass(frozen=True)
class ChangePoint:
    """A text's values are around ``centre`` up to its first bad token, and lower from there on.

    The first bad token itself may also have been improbable to the language model that wrote it: with a
    weight ``surprise`` the prior odds of a mistake at a token are ``h·π(y_l)^-surprise``, the mean over the
    tokens since the last value where values are rarer than tokens.

    Args:
        centre: value of a good token, in log-odds.
        scale: λ, what a log-odds of value counts as evidence.
        hazard: h, prior odds of a first bad token at a position against none.
        surprise: weight of a token's own log-probability, >= 0; 0 leaves it out.

    Raises ConfigError.
    """

    centre: float = 0.68
    scale: float = 0.5
    hazard: float = 0.02
    surprise: float = 0.0

    def __post_init__(self) -> None:
        require_finite("centre", self.centre)
        for name in ("scale", "hazard"):
            if require_finite(name, getattr(self, name)) <= 0:
                raise ConfigError(f"{name} must be positive", got=getattr(self, name))
        require_finite("surprise", self.surprise, minimum=0.0)

    def log_odds(
        self, values: Sequence[float], log_probs: Sequence[float] = ()
    ) -> list[tuple[int, float]]:
        """(position, log odds of the first bad token there against none), wherever there is a value:
        ``log h - surprise·log π_i + λ Σ_{j >= i} (c - V_j)``.

        Args:
            values: of all tokens, NaN where there is none.
            log_probs: of the tokens themselves, nats, NaN where nobody knows; none: surprise has no say.
        """
        prior = self.priors(values, log_probs)
        found: list[tuple[int, float]] = []
        total = 0.0
        for i in reversed(range(len(values))):
            if math.isnan(values[i]):
                continue
            total += self.scale * (self.centre - values[i])
            found.append((i, prior[i] + total))
        return found[::-1]

    def priors(self, values: Sequence[float], log_probs: Sequence[float]) -> dict[int, float]:
        """Log of the prior odds at each position that has a value."""
        hazard = math.log(self.hazard)
        if not self.surprise:  # the mean over a step is then 1
            return {i: hazard for i, value in enumerate(values) if not math.isnan(value)}
        own = self.surprises(log_probs) or [0.0] * len(values)
        found, begin = {}, 0
        for i, value in enumerate(values):
            if not math.isnan(value):
                step = own[begin : i + 1]
                top = max(step)
                mean = math.log(sum(math.exp(x - top) for x in step) / len(step))
                found[i] = hazard + top + mean
                begin = i + 1
        return found

    def surprises(self, log_probs: Sequence[float]) -> list[float]:
        """``-surprise·log π`` of each token, 0 where nobody knows."""
        return [0.0 if math.isnan(p) else -self.surprise * p for p in log_probs]

    def none(
        self, values: Sequence[float], outcome: float = 0.0, log_probs: Sequence[float] = ()
    ) -> float:
        """Probability that no token is bad; ``outcome`` is the log-odds that an outcome reward gives a
        complete text."""
        return none_of(self.log_odds(values, log_probs), outcome)

    def weights(self, values: Sequence[float], log_probs: Sequence[float] = ()) -> list[float]:
        """Probability of the first bad token at each position, given that there is one; NaN where there is
        no value, and everywhere where there is none at all."""
        row = [math.nan] * len(values)
        for i, weight in _shares(self.log_odds(values, log_probs)):
            row[i] = weight
        return row

    def reach(self, values: Sequence[float], log_probs: Sequence[float] = ()) -> float:
        """Expected position of the first bad token; the text's length where there is none."""
        odds = self.log_odds(values, log_probs)
        none = none_of(odds)
        at = sum(i * weight for i, weight in _shares(odds))
        return none * len(values) + (1 - none) * at


def none_of(odds: Sequence[tuple[int, float]], outcome: float = 0.0) -> float:
    """Probability that no token is bad, of the log odds that :meth:`ChangePoint.log_odds` gives."""
    top = max([outcome, *(odd for _, odd in odds)])
    return math.exp(outcome - top) / (
        math.exp(outcome - top) + sum(math.exp(odd - top) for _, odd in odds)
    )


def _shares(odds: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """(position, probability of the first bad token there), given that there is one."""
    top = max((odd for _, odd in odds), default=0.0)
    raised = [(i, math.exp(odd - top)) for i, odd in odds]
    total = sum(weight for _, weight in raised)
    return [(i, weight / total) for i, weight in raised]
