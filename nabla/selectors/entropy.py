"""Refine where the language model is unsure: entropy."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.selectors.base import SelectionView, Selector, selectors


@selectors.register("entropy")
class EntropySelector(Selector):
    """Positions with entropy above ``threshold`` nats (SPEC Algorithm 3; the paper uses 0.25)."""

    def __init__(self, threshold: float = 0.25) -> None:
        self.threshold = require_finite("threshold", threshold)

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return view.trajectory.entropy > self.threshold
