"""Screens that compare single values: with a number, with what came before, with the text that is held."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError, require_finite
from nabla.screens.base import Screen, known, screens
from nabla.screens.sampled import Sampled, chosen, quantile


@screens.register("value")
class Value(Screen):
    """The first token with a value below ``threshold`` is bad.

    Args:
        threshold: in the reward's unit; 0 is even odds where values are log-odds.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = require_finite("threshold", threshold)

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        return next((i for i, value in known(values) if value < self.threshold), None)


@screens.register("drop")
class Drop(Screen):
    """The first token whose value is more than ``size`` below the largest one before it is bad.

    Args:
        size: in the reward's unit, > 0.
    """

    def __init__(self, size: float = 2.0) -> None:
        self.size = require_finite("size", size, minimum=0.0)

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        highest = float("-inf")
        for i, value in known(values):
            if value < highest - self.size:
                return i
            highest = max(highest, value)
        return None


@screens.register("bound")
class Bound(Screen):
    """The first token whose value is not above the reward that is held is bad: where the reward of a text is
    the minimum of its values, such a text cannot win, and nothing is lost by stopping it."""

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        if held is None:
            return None
        return next((i for i, value in known(values) if value <= held), None)


@screens.register("quantile")
class Quantile(Screen):
    """The first token whose value is below those of nearly all good texts is bad.

    The level is the ``share``-quantile of the lowest value that a text has before its last step, over the
    texts which best-of-n would choose among those sampled before the run (:class:`~nabla.screens.gate.Gate`):
    at most that share of them would have been stopped. The rule needs no scale: where values tell nothing of
    the end it stops good and bad texts alike, and few of both.

    Args:
        share: of the best texts that may be lost, at least 0 and below 1.
        level: a fixed one instead, in the reward's unit.
    """

    def __init__(self, share: float = 0.05, level: float | None = None) -> None:
        if not 0 <= require_finite("share", share) < 1:
            raise ConfigError("share must be at least 0 and below 1", got=share)
        self.share = share
        self.level = None if level is None else require_finite("level", level)

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        if self.level is None:
            raise ConfigError(
                "A quantile is taken over texts that were sampled before, and there are none",
                fix="Solve more prompts together (the gate's 'least'), or give the screen a level.",
            )
        return next((i for i, value in known(values) if value < self.level), None)

    def fitted(self, texts: Sequence[Sampled], point: ChangePoint) -> Screen:
        """With the level of these texts; one that was given stays, and a stored gate brings no texts."""
        if self.level is not None or not texts:
            return self
        lowest = []
        for text in chosen(texts):
            before = text.values[: text.ends[-2] if len(text.ends) > 1 else len(text.values)]
            lowest.append(min((value for _, value in known(before)), default=float("inf")))
        finite = [value for value in lowest if value < float("inf")]
        if not finite:  # no text is right: below all that was seen, where nothing is stopped
            lowest = [value for text in texts for _, value in known(text.values)]
            return Quantile(self.share, min(lowest, default=0.0))
        return Quantile(self.share, quantile(finite, self.share))
