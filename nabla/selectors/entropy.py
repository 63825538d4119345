"""Refine where the language model is unsure: entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector, selectors

if TYPE_CHECKING:
    from nabla.engine.session import Session


@selectors.register("entropy")
class EntropySelector(Selector):
    """Positions with entropy above ``threshold`` nats (SPEC Algorithm 3; the paper uses 0.25)."""

    def __init__(self, threshold: float = 0.25) -> None:
        self.threshold = require_finite("threshold", threshold)

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        (known,) = await session.states([trajectory])
        return known.entropy > self.threshold
