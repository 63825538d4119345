"""Controls: every position, or random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector, selectors

if TYPE_CHECKING:
    from nabla.engine.session import Session


@selectors.register("all")
class All(Selector):
    """Every position: Algorithms 1 and 2 without selection."""

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        return torch.ones(len(trajectory), dtype=torch.bool)


@selectors.register("random")
class RandomSelector(Selector):
    """Each position with probability ``probability``: the control for every other selector."""

    monotone_in = ("probability",)

    def __init__(self, probability: float = 0.1) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError("probability must be in [0, 1]", got=probability)
        self.probability = probability

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        noise = session.generator("select", session.written)
        return torch.rand(len(trajectory), generator=noise) < self.probability
