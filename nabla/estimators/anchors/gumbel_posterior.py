"""The exact view of a sampled text: the Gumbel noise that made it, held fixed (SPEC section 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.random import conditional_gumbel
from nabla.estimators.anchors.base import Anchor, anchors, argmax


@anchors.register("gumbel-posterior")
class GumbelPosteriorAnchor(Anchor):
    """Stand at ``argmax(z/τ + g)``, g drawn once from its posterior given the rollout's tokens.

    A token sampled at temperature τ is ``argmax(z_0/τ + g)`` for some Gumbel noise g. Given the token, g
    is a top-down sample of truncated Gumbels (arXiv 1411.0030). Held fixed, it makes refinement a
    deterministic map of z that starts at the rollout's text, and moves a token with the probability of
    a coupled resample, not only where the argmax flips. Every hard estimator stands there; Gumbel
    estimators, soft ones too, use this noise in place of fresh draws.

    Top-k and top-p are not part of the posterior: candidates that they cut off are taken as sampled
    over and lost.

    Args:
        temperature: τ; None takes the rollout's own. At 0 (greedy rollouts) there is no noise.
    """

    def __init__(self, temperature: float | None = None) -> None:
        if temperature is not None and not 0 <= temperature < float("inf"):
            raise ConfigError("The anchor's temperature must be >= 0 and finite", got=temperature)
        self.temperature = temperature

    def noise(
        self,
        reference: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
        *,
        temperature: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "*batch k"]:
        tau = temperature if self.temperature is None else self.temperature
        if tau == 0:
            return torch.zeros_like(reference)
        held = conditional_gumbel(reference.double() / tau, chosen, generator)
        return (tau * held).to(reference.dtype)  # so that argmax(z + noise) = argmax(z/τ + g)

    def index(
        self,
        scores: Float[Tensor, "*batch k"],
        reference_scores: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
    ) -> Int[Tensor, "*batch"]:
        """``argmax(scores)``; the initial one is the rollout's token by construction, also where rounding
        makes a tie."""
        now, then = argmax(scores), argmax(reference_scores)
        return torch.where(now == then, chosen, now)
