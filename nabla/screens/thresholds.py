"""Screens that compare single values: with a number, with what came before, with the text that is held."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.errors import require_finite
from nabla.screens.base import Screen, known, screens


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
