"""Rao-Blackwellised straight-through Gumbel-softmax (Paulus et al., arXiv 2010.04838)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import require_positive
from nabla.core.random import conditional_gumbel
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators, hard_rows, perturbation, straight_through
from nabla.schedulers.base import Schedule, Step


@estimators.register("rao-gumbel")
class RaoGumbel(Estimator):
    """One-hot of a sample D forward; backward, softmax averaged over Gumbels that give the same D.

    ``(1/K) Σ_k ∂softmax((z + g_k)/τ)/∂z`` with ``g_k ~ g | argmax(z + g) = D`` held fixed (arXiv 2010.04838,
    Eq. 10): the mean of straight-through Gumbel-softmax at a smaller variance, for one text and one
    gradient of the models.

    Args:
        temperature: τ of the backward rule.
        samples: K, conditional draws of noise.
    """

    hard = True
    stochastic = True

    def __init__(self, temperature: float | Schedule | str | dict[str, Any] = 1.0, samples: int = 10) -> None:
        super().__init__(temperature)
        require_positive(samples=samples)
        self.samples = samples

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        noise = perturbation(logits, generator, anchor)
        sample = hard_rows(logits + noise, anchor, noise)
        many = logits.expand(self.samples, *logits.shape)
        chosen = sample.argmax(-1).expand(many.shape[:-1])
        given = conditional_gumbel(many, chosen, generator)
        soft = ((many + given) / self.temperature(step)).softmax(-1).mean(0)
        return straight_through(sample, soft)
