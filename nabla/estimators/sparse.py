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
from nabla.estimators.base import Estimator, estimators, hard_rows, straight_through
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
class SparsemaxStraightThrough(Estimator):
    """One-hot of the argmax forward, sparsemax of ``z/τ`` backward (arXiv 1602.02068)."""

    hard = True
    stochastic = False

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        soft = self.surrogate(logits, generator=generator, step=step)
        return straight_through(hard_rows(logits, anchor), soft)

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"]:
        soft: Tensor = sparsemax(_within_reach(logits, self.temperature(step)), dim=-1)
        return soft


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
class Entmax15StraightThrough(Estimator):
    """One-hot of the argmax forward, 1.5-entmax of ``z/τ`` backward (arXiv 1905.05702)."""

    hard = True
    stochastic = False

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        soft = self.surrogate(logits, generator=generator, step=step)
        return straight_through(hard_rows(logits, anchor), soft)

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"]:
        soft: Tensor = entmax15(_within_reach(logits, self.temperature(step)), dim=-1)
        return soft
