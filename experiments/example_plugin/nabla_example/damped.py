"""A hard estimator from its soft rows alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.estimators.base import HardEstimator
from nabla.schedulers.base import Step


class DampedStraightThrough(HardEstimator):
    """Straight-through behind ``½ softmax(z/τ) + ½ softmax(z/2τ)``: confident tokens keep some gradient."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        scaled = logits / self.temperature(step)
        return (scaled.softmax(-1) + (scaled / 2).softmax(-1)) / 2
