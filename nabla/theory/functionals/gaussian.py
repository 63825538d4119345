"""F of Gaussians, in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.theory.problems.gaussian import GaussianProblem


class GaussianEnergy:
    """F of ``N(m, Σ)`` for a Gaussian problem, nats.

    Args:
        problem: Gaussian π, linear and quadratic r.
    """

    def __init__(self, problem: GaussianProblem) -> None:
        self.problem = problem

    def value(self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> Float[Tensor, ""]:
        """``E[-λ r] + KL(N(m, Σ) ‖ π)``, differentiable in both."""
        p = self.problem
        expected = (
            mean @ p.linear - 0.5 * (mean @ p.quadratic @ mean) - 0.5 * (p.quadratic * covariance).sum()
        )
        shift = mean - p.mean
        inverse = torch.linalg.inv(p.covariance)
        kl = 0.5 * (
            (inverse * covariance).sum()
            + shift @ inverse @ shift
            - p.dim
            + torch.logdet(p.covariance)
            - torch.logdet(covariance)
        )
        return -p.weight * expected + kl  # type: ignore[no-any-return]

    @property
    def minimum(self) -> float:
        """``F(ρ*) = -log E_π[e^{λ r}]`` by the Gaussian integral."""
        p = self.problem
        inverse = torch.linalg.inv(p.covariance)
        h = inverse @ p.mean + p.weight * p.linear
        log = 0.5 * (h @ p.target_covariance @ h - p.mean @ inverse @ p.mean)
        log = log + 0.5 * (torch.logdet(p.target_covariance) - torch.logdet(p.covariance))
        return -float(log)

    def dissipation(self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> float:
        """``∫ ρ |∇δF/δρ|² = |P(m - m*)|² + tr((P - Σ⁻¹) Σ (P - Σ⁻¹))``."""
        p = self.problem
        slope = p.precision @ (mean - p.target_mean)
        gap = p.precision - torch.linalg.inv(covariance)
        return float(slope @ slope + (gap @ covariance @ gap).trace())

    @property
    def log_sobolev(self) -> float:
        """α with ``F(ρ_t) - F* <= e^{-2αt} (F(ρ_0) - F*)``: the smallest eigenvalue of P (Bakry-Émery)."""
        return float(torch.linalg.eigvalsh(self.problem.precision).amin())

    @staticmethod
    def entropy(covariance: Float[Tensor, "d d"]) -> float:
        """``½ log det(2πe Σ)``, nats."""
        return 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance))
