"""Rules that want a better reward."""

from __future__ import annotations

import torch

from nabla.acceptance.base import Comparison, acceptances
from nabla.core.errors import require_finite


@acceptances.register("strict")
class Strict(Comparison):
    """Accept a strictly higher reward (the paper, Algorithm 1)."""

    strict = True

    def compare(self, old: float, new: float, generator: torch.Generator) -> bool:
        return new > old


@acceptances.register("margin")
class Margin(Comparison):
    """Accept a reward higher by more than ``margin`` (reward logits): robust to a noisy reward."""

    strict = True

    def __init__(self, margin: float = 0.5) -> None:
        self.margin = require_finite("margin", margin, minimum=0.0)

    def compare(self, old: float, new: float, generator: torch.Generator) -> bool:
        return new > old + self.margin
