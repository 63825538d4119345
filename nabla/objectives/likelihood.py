"""The likelihood term."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.objectives.base import TrajectoryObjective, TrajectoryView, objectives


@objectives.register("likelihood")
class Likelihood(TrajectoryObjective):
    """``-Σ_i y_i^T log π(.|y_<i, x)`` (arXiv 2603.04948, Eq. 2).

    Args:
        detach_context: hold the contexts fixed, which removes δ_postfix (Prop. C.1) and saves the
            backward pass through the LM.
    """

    unit = "nats"
    needs_likelihood = True
    additive = True

    def __init__(self, detach_context: bool = False) -> None:
        self.detach_context = detach_context

    def value(self, view: TrajectoryView) -> Float[Tensor, ""]:
        rows = view.log_likelihood_fixed_context if self.detach_context else view.log_likelihood
        return -rows.sum()
