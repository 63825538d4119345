"""Controls: every position, or random ones."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.selectors.base import SelectionView, Selector, selectors


@selectors.register("all")
class All(Selector):
    """Every position: Algorithms 1 and 2 without selection."""

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return torch.ones_like(view.trajectory.entropy, dtype=torch.bool)


@selectors.register("random")
class RandomSelector(Selector):
    """Each position with probability ``probability``: the control for every other selector."""

    monotone_in = ("probability",)

    def __init__(self, probability: float = 0.1) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError("probability must be in [0, 1]", got=probability)
        self.probability = probability

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        draws = torch.rand(len(view.trajectory), generator=view.generator, device=view.generator.device)
        return (draws < self.probability).to(view.trajectory.entropy.device)
