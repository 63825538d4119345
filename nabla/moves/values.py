"""Moves by the reward's values at the tokens (SPEC section 14)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.change_point import ChangePoint
from nabla.core.errors import require_finite
from nabla.moves.base import Move, MoveView, WeightedSum, moves
from nabla.moves.policy import Policy


class ByValue(Move):
    """Weighs positions by the values there; tokens alike."""

    @property
    def needs_values(self) -> bool:
        return True

    @abstractmethod
    def positions(self, values: list[float]) -> list[float]:
        """Log-weight of each position from its values, NaN where there is none."""

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        return self.rows(self.positions(view.values), view)

    @staticmethod
    def rows(weights: list[float], view: MoveView) -> Float[Tensor, "rows k"]:
        """The weight of each position, for all its candidates."""
        logits = view.reference.logits
        found = torch.tensor(weights, dtype=torch.float64, device=logits.device)
        return found.unsqueeze(-1).expand(logits.shape)


@moves.register("change-point")
class ByChangePoint(ByValue):
    """``log(P_l / max P + e^-leak)`` with the posterior P of the first bad token. A position without a value
    has the weight of the next one that has one: the mistake was made on the way there. Tokens on that way
    count by their surprise, if it has a weight.

    Args:
        leak: what every position has at least, as a negative logarithm.
        centre, scale, hazard, surprise: of the change point, see
            :class:`~nabla.core.change_point.ChangePoint`.
    """

    def __init__(
        self,
        leak: float = 3.0,
        centre: float = 0.68,
        scale: float = 0.5,
        hazard: float = 0.02,
        surprise: float = 0.0,
    ) -> None:
        self.leak = require_finite("leak", leak)
        self.centre, self.scale, self.hazard, self.surprise = centre, scale, hazard, surprise
        self.change_point = ChangePoint(centre, scale, hazard, surprise)

    def with_change_point(self, point: ChangePoint) -> Move:
        return ByChangePoint(self.leak, point.centre, point.scale, point.hazard, point.surprise)

    def positions(self, values: list[float], log_probs: Sequence[float] = ()) -> list[float]:
        posterior = self.change_point.weights(values, log_probs)
        raised = self.change_point.surprises(log_probs) or [0.0] * len(values)
        found: list[float] = []
        begin = 0
        for end in [i for i, w in enumerate(posterior) if not math.isnan(w)]:
            step = raised[begin : end + 1]
            top = max(step)
            share = [math.exp(x - top) for x in step]
            mean = sum(share) / len(share)
            found += [posterior[end] * x / mean for x in share]
            begin = end + 1
        found += [0.0] * (len(values) - begin)
        most = max(found, default=0.0) or 1.0
        return [math.log(weight / most + math.exp(-self.leak)) for weight in found]

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        return self.rows(self.positions(view.values, view.surprising), view)


@moves.register("likely-mistake")
def likely_mistake(
    temperature: float = 0.5,
    floor: float = 1e-3,
    leak: float = 3.0,
    centre: float = 0.68,
    scale: float = 0.5,
    hazard: float = 0.02,
    surprise: float = 0.0,
) -> Move:
    """Tokens that the language model finds likely, where the first mistake probably is:
    ``π^(1/τ) (P_l / max P + e^-leak)`` (SPEC section 14).

    Args:
        temperature, floor: of :class:`~nabla.moves.policy.Policy`.
        leak, centre, scale, hazard, surprise: of :class:`ByChangePoint`.
    """
    point = ByChangePoint(leak, centre, scale, hazard, surprise)
    return WeightedSum([Policy(temperature, floor), point])


@moves.register("minimum")
class Minimum(ByValue):
    """At or before the first token whose value is within ``slack`` of the text's smallest one.

    Args:
        slack: in the reward's unit.
        preference: κ, log-weight of that token itself over those before it.
    """

    def __init__(self, slack: float = 1.0, preference: float = 2.0) -> None:
        self.slack = require_finite("slack", slack, minimum=0.0)
        self.preference = require_finite("preference", preference)

    def positions(self, values: list[float]) -> list[float]:
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return [0.0] * len(values)
        lowest = min(known) + self.slack
        at = next(i for i, value in enumerate(values) if value <= lowest)
        behind = len(values) - at - 1
        return [0.0] * at + [self.preference] + [float("-inf")] * behind


@moves.register("value-drop")
class ValueDrop(ByValue):
    """``weight · (V(y_<l) - V(y_<=l))``: where the value falls. What stands before the first value counts as
    equal to it; a position without a value does not fall.

    Args:
        weight: of the drop, per unit of the reward.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = require_finite("weight", weight)

    def positions(self, values: list[float]) -> list[float]:
        found, before = [], math.nan
        for value in values:
            falls = not (math.isnan(value) or math.isnan(before))
            found.append(self.weight * (before - value) if falls else 0.0)
            before = before if math.isnan(value) else value
        return found
