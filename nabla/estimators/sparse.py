"""Sparse relaxations: sparsemax (Martins & Astudillo, arXiv 1602.02068) and 1.5-entmax (Peters et al.,
arXiv 1905.05702).

Both give candidates far below the best a weight of exactly zero, and no gradient. The projections are those
of the ``entmax`` package.
"""

from __future__ import annotations

import torch
from entmax import entmax15, sparsemax
from jaxtyping import Float
from torch import Tensor

from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, HardEstimator, estimators
from nabla.schedulers.base import Step

#: A candidate further below the best than this has no weight in either projection.
REACH = 4.0


def _within_reach(logits: Tensor, temperature: float) -> Tensor:
    """``z/τ`` below its maximum, cut where weights and gradients are zero: no -inf, no cancellation."""
    return ((logits - logits.detach().amax(-1, keepdim=True)) / temperature).clamp_min(-REACH)


@estimators.register("sparsemax")
class Sparsemax(Estimator):
    """The Euclidean projection of ``z/τ`` onto the simplex (arXiv 1602.02068, Algorithm 1)."""

    hard = False
    stochastic = False

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        projected: Tensor = sparsemax(_within_reach(logits, self.temperature(step)), dim=-1)
        return projected


@estimators.register("sparsemax-straight-through")
class SparsemaxStraightThrough(HardEstimator):
    """One-hot of the argmax forward, sparsemax of ``z/τ`` backward (arXiv 1602.02068)."""

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        projected: Tensor = sparsemax(_within_reach(logits, self.temperature(step)), dim=-1)
        return projected


@estimators.register("entmax15")
class Entmax15(Estimator):
    """1.5-entmax of ``z/τ``: sparse as sparsemax, smooth as softmax (arXiv 1905.05702, Algorithm 2)."""

    hard = False
    stochastic = False

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        projected: Tensor = entmax15(_within_reach(logits, self.temperature(step)), dim=-1)
        return projected


@estimators.register("entmax15-straight-through")
class Entmax15StraightThrough(HardEstimator):
    """One-hot of the argmax forward, 1.5-entmax of ``z/τ`` backward (arXiv 1905.05702)."""

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        projected: Tensor = entmax15(_within_reach(logits, self.temperature(step)), dim=-1)
        return projected
