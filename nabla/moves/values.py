"""Moves by the reward's values at the tokens (SPEC section 14)."""

from __future__ import annotations

import math
from abc import abstractmethod

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
        logits = view.reference.logits
        rows = torch.tensor(self.positions(view.values), dtype=torch.float64, device=logits.device)
        return rows.unsqueeze(-1).expand(logits.shape)


@moves.register("change-point")
class ByChangePoint(ByValue):
    """``log(P_l / max P + e^-leak)`` with the posterior P of the first bad token. A position without a value
    has the weight of the next one that has one: the mistake was made on the way there.

    Args:
        leak: what every position has at least, as a negative logarithm.
        centre, scale, hazard: of the change point, see :class:`~nabla.core.change_point.ChangePoint`.
    """

    def __init__(
        self, leak: float = 3.0, centre: float = 0.68, scale: float = 0.5, hazard: float = 0.02
    ) -> None:
        self.leak = require_finite("leak", leak)
        self.centre, self.scale, self.hazard = centre, scale, hazard
        self.change_point = ChangePoint(centre, scale, hazard)

    def positions(self, values: list[float]) -> list[float]:
        weights = self.change_point.weights(values)
        top = max((w for w in weights if not math.isnan(w)), default=1.0)
        found, following = [], 0.0
        for weight in reversed(weights):
            following = following if math.isnan(weight) else weight / top
            found.append(math.log(following + math.exp(-self.leak)))
        return found[::-1]


@moves.register("likely-mistake")
def likely_mistake(
    temperature: float = 0.5,
    floor: float = 1e-3,
    leak: float = 3.0,
    centre: float = 0.68,
    scale: float = 0.5,
    hazard: float = 0.02,
) -> Move:
    """Tokens that the language model finds likely, where the first mistake probably is:
    ``π^(1/τ) (P_l / max P + e^-leak)`` (SPEC section 14).

    Args:
        temperature, floor: of :class:`~nabla.moves.policy.Policy`.
        leak, centre, scale, hazard: of :class:`ByChangePoint`.
    """
    return WeightedSum([Policy(temperature, floor), ByChangePoint(leak, centre, scale, hazard)])


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
