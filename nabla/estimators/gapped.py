"""Gapped straight-through (Fan et al., arXiv 2206.07235)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators, hard_rows, perturbation, straight_through
from nabla.schedulers.base import Schedule, Step


@estimators.register("gapped-straight-through")
class GappedStraightThrough(Estimator):
    """One-hot of a sample D forward; backward, softmax of logits moved so that D leads by a gap.

    ``softmax((z + m_1 + m_2)/τ)``, m_1 and m_2 constants: m_1 lifts D to the largest logit, m_2 pushes every
    other one at least ``gap`` below it (arXiv 2206.07235, sec. 4). What Gumbel noise does to the logits
    given D, without its variance.

    Args:
        temperature: τ of the backward rule.
        gap: smallest lead of D, in the logits' unit (nats); the paper's is 1.
    """

    hard = True
    stochastic = True

    def __init__(self, temperature: float | Schedule | str | dict[str, Any] = 1.0, gap: float = 1.0) -> None:
        super().__init__(temperature)
        self.gap = require_finite("gap", gap, minimum=0.0)

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
        fixed, chosen = logits.detach(), sample > 0
        top = fixed.amax(-1, keepdim=True)
        lift = top - fixed
        push = (fixed + self.gap - top).clamp_min(0.0)
        moved = logits + torch.where(chosen, lift, -push)
        soft = (moved / self.temperature(step)).softmax(-1)
        return straight_through(sample, soft)
