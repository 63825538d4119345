"""Refine where the reward begins to doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector

if TYPE_CHECKING:
    from nabla.engine.session import Session


class DoubtfulSteps(Selector):
    """Tokens of the steps whose reward is under ``threshold``; every token where the reward has no steps."""

    pointwise = False  # a step's tokens are chosen together

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = require_finite("threshold", threshold)

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        (judged,) = await session.score([trajectory])
        chosen = torch.zeros(len(trajectory), dtype=torch.bool)
        begin = 0
        for reward, end in zip(judged.score.steps, judged.score.ends, strict=True):
            chosen[begin : end + 1] = reward < self.threshold
            begin = end + 1
        return chosen if judged.score.steps else ~chosen
