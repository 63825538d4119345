"""Barker's rule with the proposal's densities: exact, and smoother than Metropolis-Hastings."""

from __future__ import annotations

import torch

from nabla.acceptance.base import Acceptance, Densities, reward_of
from nabla.core.trajectory import Trajectory


class Barker(Acceptance):
    """Accept with probability ``a / (1 + a)``, a the Metropolis-Hastings ratio (Barker, 1965)."""

    needs_densities = True
    tilt = 1.0

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        assert densities is not None
        log_ratio = reward_of(proposal) - reward_of(current) + densities.ratio
        return bool(torch.rand((), generator=generator) < torch.sigmoid(torch.tensor(log_ratio)))
