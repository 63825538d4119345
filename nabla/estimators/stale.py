"""A staleness bound for gradient caching, for estimators whose rows move at every step."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators
from nabla.schedulers.base import Step


@estimators.register("stale")
class Stale(Estimator):
    """Wraps an estimator; a gradient is reused while no row moved by more than ``bound`` in L1.

    An approximation that the user asks for (SPEC Algorithm 4): the reused gradient belongs to rows
    at most ``bound`` away.

    Args:
        estimator: gives the rows and the backward rule.
        bound: L1 distance, 0 (exact reuse) to 2 (two rows of the simplex are never farther apart,
            so the first gradient serves every step). Values are those of the very texts that were drawn:
            with value feedback they are reused for the same texts alone, whatever the bound.
    """

    hard = False
    stochastic = True

    def __init__(self, estimator: Estimator | str | dict[str, Any], bound: float) -> None:
        self.estimator = estimators.build(estimator)
        super().__init__(self.estimator.temperature)
        self.bound = self.staleness = require_finite("bound", bound, minimum=0.0)
        self.hard = self.estimator.hard  # type: ignore[misc]
        self.stochastic = self.estimator.stochastic  # type: ignore[misc]
        self.feedback = self.estimator.feedback  # type: ignore[misc]
        self.draws = self.estimator.draws

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*rows k"]:
        return self.estimator.relax(logits, generator=generator, step=step, anchor=anchor)

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"] | None:
        return self.estimator.surrogate(logits, generator=generator, step=step)

    def loss(
        self,
        logits: Float[Tensor, "*batch k"],
        rows: Float[Tensor, "*rows k"],
        feedback: Float[Tensor, "*feedback"],
    ) -> Float[Tensor, ""]:
        return self.estimator.loss(logits, rows, feedback)

    def reusable(self, cached: Float[Tensor, "*rows k"], current: Float[Tensor, "*rows k"]) -> bool:
        if self.feedback == "value":
            return torch.equal(cached, current)
        return bool(((cached - current).abs().sum(-1) <= self.bound).all())
