"""ReinMax: a straight-through estimator of second order (Liu et al., arXiv 2304.08612)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators, hard_rows, perturbation, straight_through
from nabla.schedulers.base import Step


@estimators.register("reinmax")
class ReinMax(Estimator):
    """One-hot of a sample D forward; Heun's method backward (arXiv 2304.08612, Algorithm 2).

    ``∂L/∂z = (2 J(π_1) - ½ J(π_0)) ∂L/∂y`` with ``J(π) = diag(π) - ππ^T``, ``π_0 = softmax(z)`` and
    ``π_1 = (D + softmax(z/τ)) / 2``. At τ = 1 its expectation over ``D ~ softmax(z)`` is the exact gradient
    of ``E[f]`` for every f that is quadratic in each row.
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
        sample = hard_rows(logits + noise, anchor, noise)
        middle = (sample + (logits.detach() / self.temperature(step)).softmax(-1)) / 2
        finite = logits.masked_fill(logits == float("-inf"), 0.0)
        linear = middle * (finite - (middle * finite).sum(-1, keepdim=True))  # its Jacobian is J(π_1)
        soft = 2 * linear - 0.5 * logits.softmax(-1)
        return straight_through(sample, soft)
