"""Refine where the language model is unsure: top-1 probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector, selectors

if TYPE_CHECKING:
    from nabla.engine.session import Session


@selectors.register("confidence")
class ConfidenceSelector(Selector):
    """Positions with top-1 probability at most ``threshold`` (SPEC Algorithm 3: 0.95 to 0.97)."""

    def __init__(self, threshold: float = 0.95) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError("threshold is a probability", got=threshold)
        self.threshold = threshold

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        (known,) = await session.states([trajectory])
        return known.top1 <= self.threshold
