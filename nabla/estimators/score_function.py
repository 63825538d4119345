"""The score function (REINFORCE; Williams, 1992) with a leave-one-out baseline (Kool et al., 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import require_count
from nabla.core.random import gumbel_like
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators, hard_rows
from nabla.schedulers.base import Step


@estimators.register("score-function")
class ScoreFunction(Estimator):
    """REINFORCE: values of L at K sampled texts, no gradient of the models; unbiased for every L.

    ``(1/K) Σ_k (L(y_k) - mean_{j≠k} L(y_j)) ∂log p_z(y_k)/∂z`` with ``y_k ~ softmax(z)`` row by row. It
    estimates ``∂/∂z E_{y~p_z}[L(y)]``. An expectation is over all texts, so it stands at no anchor.

    Args:
        draws: K >= 2, texts per step.
    """

    hard = True
    stochastic = True
    feedback = "value"

    def __init__(self, draws: int = 4) -> None:
        super().__init__(1.0)
        require_count("draws", draws, minimum=2, note=": the baseline of a text is the others' mean")
        self.draws = draws

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "draws *batch k"]:
        many = logits.detach().expand(self.draws, *logits.shape)
        return hard_rows(many + gumbel_like(many, generator), None)

    def loss(
        self,
        logits: Float[Tensor, "*batch k"],
        rows: Float[Tensor, "draws *batch k"],
        feedback: Float[Tensor, " draws *b"],
    ) -> Float[Tensor, ""]:
        taken = torch.where(rows > 0, logits.log_softmax(-1), 0.0)
        log_probabilities = taken.flatten(feedback.dim()).sum(-1)
        advantage = (feedback - feedback.mean(0)) * (self.draws / (self.draws - 1))
        return (advantage * log_probabilities).sum() / self.draws
