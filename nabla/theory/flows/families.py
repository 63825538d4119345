"""Parametric families ``x = f_θ(ξ)``, ξ standard normal: the amortised (PPO) side of the duality."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.theory.problems.base import Problem


def gauss_hermite(dim: int, nodes: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Nodes and weights of expectations under ``N(0, I)`` in one or two dimensions."""
    if dim > 2:
        raise ConfigError("Gauss-Hermite products are for one or two dimensions", got=dim)
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    points = np.stack([m.ravel() for m in np.meshgrid(*[x] * dim, indexing="ij")], -1)
    weights = np.prod(np.stack([m.ravel() for m in np.meshgrid(*[w] * dim, indexing="ij")], -1), -1)
    keep = weights > 1e-30
    return torch.from_numpy(points[keep]), torch.from_numpy(weights[keep])


def trapezoid(dim: int, nodes: int, span: float = 9.0) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """The same by the trapezoidal rule on ``[-span, span]``, which converges geometrically for analytic
    integrands, also where singularities near the real axis slow Gauss-Hermite down."""
    if dim > 2:
        raise ConfigError("Product rules are for one or two dimensions", got=dim)
    x = torch.linspace(-span, span, nodes, dtype=torch.float64)
    w = torch.exp(-0.5 * x**2)
    w = w / w.sum()
    points = torch.cartesian_prod(*[x] * dim).reshape(-1, dim)
    weights = torch.cartesian_prod(*[w] * dim).reshape(-1, dim).prod(-1)
    return points, weights


class Family(ABC):
    """A family of invertible maps.

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @abstractmethod
    def push(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """``f_θ(ξ)``."""

    @abstractmethod
    def log_det(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``log |det ∂f_θ/∂ξ|``."""

    @abstractmethod
    def pull(self, theta: Float[Tensor, " p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """``f_θ^{-1}(x)``, differentiable in both."""

    def log_density(self, theta: Float[Tensor, " p"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``log ρ_θ(x)``, nats."""
        noise = self.pull(theta, x)
        normal = -0.5 * noise.pow(2).sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)
        return normal - self.log_det(theta, noise)

    def energy(
        self,
        problem: Problem,
        theta: Float[Tensor, " p"],
        noise: Float[Tensor, "n d"],
        weights: Float[Tensor, " n"],
    ) -> Float[Tensor, ""]:
        """``F(θ) = E_ξ[L(f_θ(ξ)) - log |det ∂f_θ/∂ξ|] - H(ξ)``, nats, differentiable in θ."""
        constant = 0.5 * self.dim * math.log(2 * math.pi * math.e)
        inside = problem.loss(self.push(theta, noise)) - self.log_det(theta, noise)
        return (weights * inside).sum() - constant


class Affine(Family):
    """``f_θ(ξ) = m + A ξ``, θ = (m, A row by row): all Gaussians."""

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return theta[: self.dim], theta[self.dim :].reshape(self.dim, self.dim)

    def start(self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> Float[Tensor, " p"]:
        """θ of a Gaussian."""
        return torch.cat([mean, torch.linalg.cholesky(covariance).reshape(-1)])

    def moments(self, theta: Float[Tensor, " p"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        """Mean and covariance of ρ_θ."""
        mean, scale = self._split(theta)
        return mean, scale @ scale.T

    def push(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        mean, scale = self._split(theta)
        return mean + noise @ scale.T

    def log_det(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return torch.linalg.slogdet(self._split(theta)[1]).logabsdet.expand(len(noise))  # type: ignore[no-any-return]

    def pull(self, theta: Float[Tensor, " p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        mean, scale = self._split(theta)
        return torch.linalg.solve(scale, (x - mean).T).T  # type: ignore[no-any-return]


class Sine(Family):
    """``f_θ(ξ)_i = m_i + s_i ξ_i + c_i sin ξ_i + k_i sin ξ_{i-1}``, ``s_i > |c_i|``: curved, not Gaussian.

    θ = (m, s, c, k), d numbers each; triangular, so its log-determinant is ``Σ log(s_i + c_i cos ξ_i)``.
    """

    def push(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        m, s, c, k = theta.reshape(4, self.dim)
        wave = torch.sin(noise)
        before = torch.cat([torch.zeros_like(wave[:, :1]), wave[:, :-1]], -1)
        return m + s * noise + c * wave + k * before  # type: ignore[no-any-return]

    def log_det(self, theta: Float[Tensor, " p"], noise: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        _, s, c, _ = theta.reshape(4, self.dim)
        return torch.log(s + c * torch.cos(noise)).sum(-1)

    def pull(self, theta: Float[Tensor, " p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """By Newton; two last steps carry the derivatives (the first alone is exact to first order)."""
        m, s, c, k = theta.reshape(4, self.dim)
        columns: list[Tensor] = []
        for i in range(self.dim):
            shift = k[i] * torch.sin(columns[-1]) if columns else 0.0
            goal = x[:, i] - m[i] - shift
            with torch.no_grad():
                xi = goal / s[i]
                for _ in range(100):
                    move = (s[i] * xi + c[i] * torch.sin(xi) - goal) / (s[i] + c[i] * torch.cos(xi))
                    xi = xi - move.clamp(-1, 1)
            for _ in range(2):
                xi = xi - (s[i] * xi + c[i] * torch.sin(xi) - goal) / (s[i] + c[i] * torch.cos(xi))
            columns.append(xi)
        return torch.stack(columns, -1)
