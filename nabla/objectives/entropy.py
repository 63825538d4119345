"""Entropy of the refined distribution."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.objectives.base import LogitObjective, log_probabilities, objectives


@objectives.register("entropy")
class Entropy(LogitObjective):
    """``-H(softmax z)``, summed over rows: minimising it keeps the rows spread out.

    A negative weight sharpens instead.
    """

    unit = "nats"

    def value(self, logits: Float[Tensor, "rows k"], reference: Float[Tensor, "rows k"]) -> Float[Tensor, ""]:
        log_p, p = log_probabilities(logits)
        return (p * log_p).sum()
