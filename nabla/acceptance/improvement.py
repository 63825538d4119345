"""Rules that want a better reward."""

from __future__ import annotations

import torch

from nabla.acceptance.base import Acceptance, Densities, acceptances, reward_of
from nabla.core.errors import require_finite
from nabla.core.trajectory import Trajectory


@acceptances.register("strict")
class Strict(Acceptance):
    """Accept a strictly higher reward (the paper, Algorithm 1)."""

    strict = True

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return reward_of(proposal) > reward_of(current)


@acceptances.register("margin")
class Margin(Acceptance):
    """Accept a reward higher by more than ``margin`` (reward logits): robust to a noisy reward."""

    strict = True

    def __init__(self, margin: float = 0.5) -> None:
        self.margin = require_finite("margin", margin, minimum=0.0)

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return reward_of(proposal) > reward_of(current) + self.margin
