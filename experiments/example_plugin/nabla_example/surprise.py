"""Refine where the rollout wrote something unlikely."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.selectors.base import SelectionView, Selector


class SurpriseSelector(Selector):
    """Positions whose token has ``-log π`` above ``threshold`` nats: surprising ones, not uncertain ones."""

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = require_finite("threshold", threshold)

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return -view.trajectory.log_probs > self.threshold
