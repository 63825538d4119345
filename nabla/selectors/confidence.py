"""Refine where the language model is unsure: top-1 probability."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.selectors.base import SelectionView, Selector, selectors


@selectors.register("confidence")
class ConfidenceSelector(Selector):
    """Positions with top-1 probability at most ``threshold`` (SPEC Algorithm 3: 0.95 to 0.97)."""

    def __init__(self, threshold: float = 0.95) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError("threshold is a probability", got=threshold)
        self.threshold = threshold

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return view.trajectory.top1 <= self.threshold
