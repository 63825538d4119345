"""Refine where the rollout wrote something unlikely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector

if TYPE_CHECKING:
    from nabla.engine.session import Session


class SurpriseSelector(Selector):
    """Positions whose token has ``-log π`` above ``threshold`` nats: surprising ones, not uncertain ones."""

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = require_finite("threshold", threshold)

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        return -trajectory.log_probs > self.threshold
