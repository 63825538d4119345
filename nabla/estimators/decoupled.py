"""Straight-through with a temperature for each direction (Shah et al., arXiv 2410.13331)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import HardEstimator, estimators, hard_rows, perturbation
from nabla.schedulers.base import Schedule, Step, as_schedule


@estimators.register("decoupled-straight-through")
class DecoupledStraightThrough(HardEstimator):
    """One-hot of ``D ~ softmax(z/τ_f)`` forward, ``softmax(z/τ_b)`` backward (arXiv 2410.13331, v2).

    τ_f sets how far the text strays from the argmax, τ_b over how many candidates the gradient is
    spread. Both 1: the sampled straight-through estimator, exact to first order.

    Args:
        forward_temperature: τ_f > 0.
        backward_temperature: τ_b > 0.
    """

    stochastic = True

    def __init__(
        self,
        forward_temperature: float | Schedule | str | dict[str, Any] = 1.0,
        backward_temperature: float | Schedule | str | dict[str, Any] = 1.0,
    ) -> None:
        super().__init__(backward_temperature)
        self.forward_temperature = as_schedule(forward_temperature, "forward_temperature")
        if self.forward_temperature.bounds[0] <= 0:
            raise ConfigError("forward_temperature must be positive", got=forward_temperature)

    def text(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        noise = perturbation(logits, generator, anchor, self.forward_temperature(step))
        return hard_rows(logits + noise, anchor, noise)

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        return (logits / self.temperature(step)).softmax(-1)
