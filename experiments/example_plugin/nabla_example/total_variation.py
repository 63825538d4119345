"""Smoothed total variation: how much probability refinement moved."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.objectives.base import LogitObjective


class TotalVariation(LogitObjective):
    """``½ Σ_k (√((p - p_ref)² + ε²) - ε)``, summed over rows: total variation, smooth at the reference."""

    unit = "probability"
    divergence = True  # never negative; zero, with zero gradient, at the reference

    def __init__(self, smoothing: float = 0.01) -> None:
        self.smoothing = require_finite("smoothing", smoothing, minimum=1e-6)

    def value(self, logits: Float[Tensor, "rows k"], reference: Float[Tensor, "rows k"]) -> Float[Tensor, ""]:
        gap = logits.softmax(-1) - reference.softmax(-1)
        smooth = (gap**2 + self.smoothing**2).sqrt() - self.smoothing
        return smooth.sum() / 2
