"""Where the first mistake is, as a change point of the values (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nabla.core.errors import ConfigError, require_finite
from nabla.screens.base import Screen, known, screens


@dataclass(frozen=True)
class ChangePoint:
    """A text's values are around ``centre`` up to its first bad token, and lower from there on.

    Args:
        centre: value of a good token, in log-odds.
        scale: λ, what a log-odds of value counts as evidence.
        hazard: h, prior odds of a first bad token at a position against none.
    """

    centre: float = 0.68
    scale: float = 0.5
    hazard: float = 0.02

    def log_odds(self, values: Sequence[float]) -> list[tuple[int, float]]:
        """(position, log odds of the first bad token there against none), wherever there is a value:
        ``log h + λ Σ_{j >= i} (c - V_j)``."""
        found: list[tuple[int, float]] = []
        total = 0.0
        for i, value in reversed(known(values)):
            total += self.scale * (self.centre - value)
            found.append((i, math.log(self.hazard) + total))
        return found[::-1]

    def none(self, values: Sequence[float], outcome: float = 0.0) -> float:
        """Probability that no token is bad; ``outcome`` is the log-odds that an outcome reward gives a
        complete text."""
        odds = [odd for _, odd in self.log_odds(values)]
        top = max([outcome, *odds])
        return math.exp(outcome - top) / (
            math.exp(outcome - top) + sum(math.exp(odd - top) for odd in odds)
        )

    def weights(self, values: Sequence[float]) -> list[float]:
        """Probability of the first bad token at each position, given that there is one; NaN where there is
        no value, and everywhere where there is none at all."""
        row = [math.nan] * len(values)
        odds = self.log_odds(values)
        top = max((odd for _, odd in odds), default=0.0)
        total = sum(math.exp(odd - top) for _, odd in odds)
        for i, odd in odds:
            row[i] = math.exp(odd - top) / total
        return row


@screens.register("posterior")
class Posterior(Screen):
    """Stops where the text so far is more probably bad than not; the first bad token is then the most
    probable one of the change point.

    Args:
        certainty: probability of a good text below which it is stopped.
        centre, scale, hazard: of the change point, see :class:`ChangePoint`.
    """

    def __init__(
        self,
        certainty: float = 0.5,
        centre: float = 0.68,
        scale: float = 0.5,
        hazard: float = 0.02,
    ) -> None:
        if not 0 < certainty < 1:
            raise ConfigError("certainty must be between 0 and 1", got=certainty)
        self.certainty = certainty
        self.centre = require_finite("centre", centre)
        self.scale = require_finite("scale", scale, minimum=0.0)
        self.hazard = require_finite("hazard", hazard, minimum=0.0)
        if not (self.scale > 0 and self.hazard > 0):
            raise ConfigError("scale and hazard must be positive", got=(scale, hazard))

    @property
    def change_point(self) -> ChangePoint:
        """Of these settings."""
        return ChangePoint(self.centre, self.scale, self.hazard)

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        odds = self.change_point.log_odds(values)
        if not odds or self.change_point.none(values) >= self.certainty:
            return None
        return max(odds, key=lambda pair: pair[1])[0]
