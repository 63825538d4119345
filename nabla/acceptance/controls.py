"""Controls: always and never."""

from __future__ import annotations

import torch

from nabla.acceptance.base import Acceptance, Densities, acceptances
from nabla.core.trajectory import Trajectory


@acceptances.register("always")
class Always(Acceptance):
    """Accept every proposal: the control without rejection sampling. Needs no reward."""

    @property
    def needs_reward(self) -> bool:
        return False

    @property
    def tilt(self) -> float:
        return 0.0  # the chain is π itself

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return True


@acceptances.register("never")
class Never(Acceptance):
    """Accept no proposal: the rollout itself, at the cost of the method. Needs no reward."""

    @property
    def needs_reward(self) -> bool:
        return False

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return False
