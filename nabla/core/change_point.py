"""Where the first mistake is, as a change point of a reward's values (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nabla.core.errors import ConfigError, require_finite


@dataclass(frozen=True)
class ChangePoint:
    """A text's values are around ``centre`` up to its first bad token, and lower from there on.

    Args:
        centre: value of a good token, in log-odds.
        scale: λ, what a log-odds of value counts as evidence.
        hazard: h, prior odds of a first bad token at a position against none.

    Raises ConfigError.
    """

    centre: float = 0.68
    scale: float = 0.5
    hazard: float = 0.02

    def __post_init__(self) -> None:
        require_finite("centre", self.centre)
        for name in ("scale", "hazard"):
            if require_finite(name, getattr(self, name)) <= 0:
                raise ConfigError(f"{name} must be positive", got=getattr(self, name))

    def log_odds(self, values: Sequence[float]) -> list[tuple[int, float]]:
        """(position, log odds of the first bad token there against none), wherever there is a value:
        ``log h + λ Σ_{j >= i} (c - V_j)``."""
        found: list[tuple[int, float]] = []
        total = 0.0
        for i in reversed(range(len(values))):
            if math.isnan(values[i]):
                continue
            total += self.scale * (self.centre - values[i])
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
