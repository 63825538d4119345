"""Stopping by the posterior of a change point (SPEC section 14)."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.change_point import ChangePoint, none_of
from nabla.core.errors import ConfigError
from nabla.screens.base import Screen, screens
from nabla.screens.sampled import Sampled


@screens.register("posterior")
class Posterior(Screen):
    """Stops where the text so far is more probably bad than not; the first bad token is then the most
    probable one of the change point.

    Args:
        certainty: probability of a good text below which it is stopped.
        centre, scale, hazard, surprise: of the change point, see
            :class:`~nabla.core.change_point.ChangePoint`.
    """

    lasting = False

    def __init__(
        self,
        certainty: float = 0.5,
        centre: float = 0.68,
        scale: float = 0.5,
        hazard: float = 0.02,
        surprise: float = 0.0,
    ) -> None:
        if not 0 < certainty < 1:
            raise ConfigError("certainty must be between 0 and 1", got=certainty)
        self.certainty = certainty
        self.centre, self.scale, self.hazard, self.surprise = centre, scale, hazard, surprise
        self.change_point = ChangePoint(centre, scale, hazard, surprise)

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        return self.read(values, held, ())

    def read(
        self, values: Sequence[float], held: float | None, log_probs: Sequence[float]
    ) -> int | None:
        odds = self.change_point.log_odds(values, log_probs)
        if not odds or none_of(odds) >= self.certainty:
            return None
        return max(odds, key=lambda pair: pair[1])[0]

    def reach(self, values: Sequence[float], log_probs: Sequence[float], bad: int | None) -> float:
        """The expected position of the first bad token."""
        return self.change_point.reach(values, log_probs)

    def fitted(self, texts: Sequence[Sampled], point: ChangePoint) -> Screen:
        """With the fitted weights."""
        return Posterior(self.certainty, point.centre, point.scale, point.hazard, point.surprise)
