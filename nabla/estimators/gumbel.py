"""Gumbel-softmax relaxations (Jang et al., arXiv 1611.01144; Maddison et al., arXiv 1611.00712)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.random import gumbel_like
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators, hard_rows, perturbation, straight_through
from nabla.schedulers.base import Step


@estimators.register("gumbel-softmax")
class GumbelSoftmax(Estimator):
    """``softmax((z + g)/τ)`` with fresh Gumbel noise at every step (arXiv 1611.01144).

    The noise is the anchor's where that holds some fixed (``gumbel-posterior``).
    """

    hard = False
    stochastic = True

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        noisy = logits + perturbation(logits, generator, anchor)
        return (noisy / self.temperature(step)).softmax(-1)


@estimators.register("gumbel-straight-through")
class GumbelStraightThrough(Estimator):
    """One-hot of ``argmax(z + g)`` forward, Gumbel-softmax backward (arXiv 1611.01144, sec. 2.2).

    Anchored at a rollout, the hard token leaves the rollout's only where ``argmax(z + g)`` differs
    from ``argmax(z_0 + g)`` under the same noise: what refinement moved, not what the noise did.
    """

    hard = True
    stochastic = True

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        noise = perturbation(logits, generator, anchor)
        noisy = logits + noise
        soft = (noisy / self.temperature(step)).softmax(-1)
        return straight_through(hard_rows(noisy, anchor, noise), soft)

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"]:
        return ((logits + gumbel_like(logits, generator)) / self.temperature(step)).softmax(-1)
