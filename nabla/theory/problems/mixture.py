"""Mixtures of Gaussians with a linear reward, which moves mass between the modes; the target is a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.theory.problems.base import Problem


class MixtureProblem(Problem):
    """``π = Σ_k w_k N(m_k, s² I)``, ``r(x) = b·x``.

    The target is ``Σ_k w_k' N(m_k + λ s² b, s² I)`` with ``w_k' ∝ w_k exp(λ b·m_k)``.

    Args:
        weights: w ``[K]``, normalised here.
        means: m ``[K, d]``.
        scale: s.
        linear: b ``[d]``.
        weight: λ.
        widths: half-width of the grid's box beyond the outermost means, in s.
    """

    def __init__(
        self,
        weights: Sequence[float] = (0.7, 0.3),
        means: Sequence[Sequence[float]] = ((-1.1,), (1.1,)),
        scale: float = 0.7,
        linear: Sequence[float] = (0.4,),
        weight: float = 2.0,
        widths: float = 8.0,
        name: str | None = None,
    ) -> None:
        self.means = torch.tensor(means, dtype=torch.float64)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.weights = self.weights / self.weights.sum()
        self.linear = torch.tensor(linear, dtype=torch.float64)
        self.scale = scale
        d = self.means.shape[1]
        self.target_means = self.means + weight * scale**2 * self.linear
        self.target_weights = (self.weights.log() + weight * (self.means @ self.linear)).softmax(0)
        every = torch.cat([self.means, self.target_means])
        low, high = every.amin(0) - widths * scale, every.amax(0) + widths * scale
        box = tuple(zip(low.tolist(), high.tolist(), strict=True))
        super().__init__(name or f"mixture {d}-D", d, weight, box)

    def log_pi(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return mixture_log_density(x, self.weights.log(), self.means, self.scale)

    def reward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return x @ self.linear

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        return self._draw(self.weights, self.means, count, generator)

    def sample_target(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        return self._draw(self.target_weights, self.target_means, count, generator)

    def _draw(self, weights: Tensor, means: Tensor, count: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dim, generator=generator, dtype=torch.float64)
        return means[which] + self.scale * noise


def mixture_log_density(
    x: Float[Tensor, "n d"], log_weights: Float[Tensor, " k"], means: Float[Tensor, "k d"], scale: float
) -> Float[Tensor, " n"]:
    """``log Σ_k w_k N(x; m_k, s² I)``, nats."""
    d = x.shape[-1]
    squares = ((x[:, None] - means) ** 2).sum(-1) / (2 * scale**2)
    return torch.logsumexp(log_weights - squares, -1) - d * math.log(scale * math.sqrt(2 * math.pi))


def three_modes() -> MixtureProblem:
    """Three modes in the plane, and a reward that prefers the lightest."""
    return MixtureProblem(
        (0.5, 0.3, 0.2), ((-1.1, 0.0), (0.9, 0.9), (0.9, -0.9)), 0.65, (0.3, -0.3), weight=2.0, widths=7.0
    )
