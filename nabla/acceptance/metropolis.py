"""Metropolis rule: sampling instead of climbing."""

from __future__ import annotations

import math

import torch

from nabla.acceptance.base import Acceptance, Comparison, Densities, acceptances, reward_of
from nabla.core.errors import ConfigError, require_finite
from nabla.core.trajectory import Trajectory


@acceptances.register("metropolis")
class Metropolis(Comparison):
    """Accept with probability ``min(1, exp((r' - r) / temperature))`` (Metropolis et al., 1953).

    For proposals drawn from π itself this leaves ``π e^{r / temperature}`` invariant, the optimum
    of KL-regularised RL with λ = 1/temperature (arXiv 2603.04948, Eq. 3).

    Args:
        temperature: in the reward's own logit unit, > 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = require_finite("temperature", temperature)
        if self.temperature <= 0:
            raise ConfigError(
                "temperature must be positive",
                got=temperature,
                fix="Use acceptance 'strict' for the limit of temperature 0.",
            )

    @property
    def tilt(self) -> float:
        return 1.0 / self.temperature

    def compare(self, old: float, new: float, generator: torch.Generator) -> bool:
        return drawn((new - old) / self.temperature, generator)


@acceptances.register("metropolis-hastings")
class MetropolisHastings(Acceptance):
    """Accept with probability ``min(1, e^{(r' - r)/temperature} · π(y') q(y | y') / (π(y) q(y' | y)))``.

    With the proposal's densities (Hastings, 1970) the sampler's own ``π e^{r / temperature}`` stays invariant
    whatever the proposal prefers, as in :mod:`nabla.theory.flows.sequence`. In a sweep over rows of the
    language model itself every step is exact with ``selector="all"`` and ``max_rollouts=None``; a token that
    ends the text is then never accepted in the place of another one, since no sweep would take it back.

    Args:
        temperature: in the reward's own logit unit, > 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = Metropolis(temperature).temperature

    @property
    def needs_densities(self) -> bool:
        return True

    @property
    def tilt(self) -> float:
        return 1.0 / self.temperature

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        assert densities is not None
        gain = (reward_of(proposal) - reward_of(current)) / self.temperature + densities.ratio
        return drawn(gain, generator)


def drawn(log_ratio: float, generator: torch.Generator) -> bool:
    """True with probability ``min(1, e^log_ratio)``: the rule of Metropolis and Hastings."""
    draw = float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float64))
    return draw < math.exp(min(log_ratio, 0.0))
